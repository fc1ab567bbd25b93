"""Layouts that DeepSpeed's versions and options write, read and filled in.

What today's DeepSpeed writes itself is in tests/parity/own_checkpoint.
"""

import numpy as np
import pytest
import torch

from jaxnn.experiment.errors import UserError
from tests.torch_ref.foreign.written import (
    LENGTH,
    SHAPES,
    adam,
    common,
    flat,
    params,
    save,
    zero,
)
from torch_ref.foreign import counters, groups, opening, state
from torch_ref.foreign.__main__ import save as save_again


def held(folder, given=None):
    opened = opening.open_anyones(folder)
    named = groups.of(opened, given)
    return opened, named, state.arrays_of(opened, named)


def assert_whole(arrays):
    for name, tensor in params().items():
        np.testing.assert_array_equal(arrays[f"params/{name}"], tensor)
        for key, more in (("exp_avg", 10), ("exp_avg_sq", 20)):
            np.testing.assert_array_equal(
                arrays[f"moments/{key}/{name}"], tensor + more, strict=False
            )


def step_of(opened):
    return counters.read(opened).optimizer_step


def two_ranks():
    """Stage 1 of two ranks: padded moments, masters without padding."""
    found = []
    for rank in range(2):
        part = slice(rank * 5, rank * 5 + 5)
        moments = adam()
        for key in ("exp_avg", "exp_avg_sq"):
            whole = torch.cat([moments["state"][0][key], torch.zeros(1)])
            moments["state"][0][key] = whole[part].clone()
        found.append(
            zero(
                moments,
                single_partition_of_fp32_groups=[flat()[part].clone()],
                group_paddings=[rank],
                partition_count=[2],
            )
        )
    return found


def stage3(ranks):
    """Stage 3: each parameter in equal shares, the last ones padded."""
    found = []
    for rank in range(ranks):

        def share(start, rank=rank):
            parts = []
            for tensor in params().values():
                length = -(-tensor.numel() // ranks)
                padded = torch.cat([tensor.flatten() + start, torch.zeros(length)])
                parts.append(padded[rank * length : rank * length + length])
            return torch.cat(parts)

        moments = adam()
        moments["state"][0] |= {"exp_avg": share(10), "exp_avg_sq": share(20)}
        inner = {
            "optimizer_state_dict": moments,
            "fp32_flat_groups": [share(0)],
            "zero_stage": 3,
            "partition_count": ranks,
        }
        found.append({"optimizer_state_dict": inner})
    return found


class TestRead:
    def test_stage_1_of_one_rank(self, tmp_path):
        opened, _, arrays = held(save(tmp_path / "c", common(), [zero()]))
        assert_whole(arrays)
        assert (opened.stage, step_of(opened)) == (1, 5)
        assert counters.read(opened)[:2] == (7, 5)
        np.testing.assert_array_equal(arrays["buffers/mean"], np.float32([0, 0]))

    def test_stage_1_of_two_ranks(self, tmp_path):
        folder = save(tmp_path / "c", common(dp_world_size=2), two_ranks())
        assert_whole(held(folder)[2])

    @pytest.mark.parametrize("ranks", [1, 2, 4])
    def test_stage_3(self, tmp_path, ranks):
        model = common(dp_world_size=ranks)
        model["module"] |= {name: torch.zeros(0) for name in SHAPES}
        opened, _, arrays = held(save(tmp_path / "c", model, stage3(ranks)))
        assert_whole(arrays)
        assert opened.stage == 3

    def test_fused_adam_before_0_12_counts_in_its_group(self, tmp_path):
        content = zero(adam(step=None) | {})
        content["optimizer_state_dict"]["base_optimizer_state"]["param_groups"][0][
            "step"
        ] = 6
        assert step_of(held(save(tmp_path / "c", common(), [content]))[0]) == 6

    def test_elastic_checkpoints_list_states_and_count_beside(self, tmp_path):
        states = [adam(step=None)["state"][0]]
        content = zero(states, base_optimizer_state_step=4)
        opened, _, arrays = held(save(tmp_path / "c", common(), [content]))
        assert_whole(arrays)
        assert step_of(opened) == 4

    @pytest.mark.parametrize(
        "name",
        [
            "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt",
            "fp16_zero_pp_rank_{}_mp_rank_00_optim_states.pt",
            "zero_pp_rank_{}_mp_rank_00optim_states.pt",
        ],
    )
    def test_names_of_files(self, tmp_path, name):
        assert_whole(held(save(tmp_path / "c", common(), [zero()], name))[2])

    def test_shapes_that_are_no_list(self, tmp_path):
        model = common()
        model["param_shapes"] = model["param_shapes"][0]
        assert_whole(held(save(tmp_path / "c", model, [zero()]))[2])

    def test_bf16_beside_zero_names_no_stage(self, tmp_path):
        content = zero()
        del content["optimizer_state_dict"]["zero_stage"]
        assert_whole(held(save(tmp_path / "c", common(), [content]))[2])

    def test_parameters_that_are_aligned(self, tmp_path):
        content = zero(param_alignment_paddings=[[2, 0]])

        def spaced(values):
            return torch.cat([values[:6], torch.zeros(2), values[6:]])

        inner = content["optimizer_state_dict"]
        inner["single_partition_of_fp32_groups"] = [spaced(flat())]
        moments = inner["base_optimizer_state"]["state"][0]
        moments |= {key: spaced(moments[key]) for key in ("exp_avg", "exp_avg_sq")}
        assert_whole(held(save(tmp_path / "c", common(), [content]))[2])

    def test_what_is_no_moment(self, tmp_path):
        content = zero()
        inner = content["optimizer_state_dict"]["base_optimizer_state"]
        inner["state"][0]["worker_error"] = torch.zeros(LENGTH + 3)
        opened, named, arrays = held(save(tmp_path / "c", common(), [content]))
        assert state.describe(opened, named)["other_keys"] == ["worker_error"]
        assert not any("worker_error" in name for name in arrays)

    def test_a_namespace_beside_it(self, tmp_path):
        import argparse

        model = common(args=argparse.Namespace(rate=0.1))
        assert_whole(held(save(tmp_path / "c", model, [zero()]))[2])


class TestPut:
    """Values go where they were read, whatever the layout."""

    @pytest.mark.parametrize("layout", ["two_ranks", "stage3"])
    def test_into_pieces(self, tmp_path, layout):
        ranks = two_ranks() if layout == "two_ranks" else stage3(2)
        folder = save(tmp_path / "c", common(dp_world_size=2), ranks)
        opened, named, arrays = held(folder)
        other = {name: array + 100 for name, array in arrays.items()}
        old = counters.read(opened)
        new = old._replace(step=9, updates=6, optimizer_step=6, loss_scale=1)
        changed = state.put(opened, named, other, new)
        assert sorted(changed) == sorted(other)
        save_again(opened, tmp_path / "new")
        opened, _, again = held(tmp_path / "new")
        assert all(np.array_equal(again[name], other[name]) for name in other)
        assert counters.read(opened)[:3] == (9, 6, 6)
        assert opened.common["skipped_steps"] == 3

    def test_what_has_no_place(self, tmp_path):
        opened, named, _ = held(save(tmp_path / "c", common(), [zero()]))
        old = counters.read(opened)
        with pytest.raises(UserError, match="--template: has no place for moments/x/y"):
            state.put(opened, named, {"moments/x/y": np.ones(1, np.float32)}, old)
        with pytest.raises(UserError, match=r"b\.bias is \(3,\), \(4,\) in --from"):
            state.put(opened, named, {"params/b.bias": np.ones(4, np.float32)}, old)

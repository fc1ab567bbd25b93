"""Tests of torch_ref/checkpoint.py and deepspeed_files.py: layouts of DeepSpeed's
files, and files that are refused.

What DeepSpeed itself writes is read, resumed and handed over in
tests/parity/convert_test.py.
"""

import math
import os
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from torch_ref import checkpoint, deepspeed_files
from torch_ref.deepspeed_files import Checkpoint

SHAPES = {
    "hidden.weight": (3, 2),
    "hidden.bias": (3,),
    "output.weight": (1, 3),
    "output.bias": (1,),
}


class Attack:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


def model() -> torch.nn.Module:
    return torch.nn.ModuleDict(
        {"hidden": torch.nn.Linear(2, 3), "output": torch.nn.Linear(3, 1)}
    )


def common(**changes) -> dict:
    return {
        "module": {},
        "buffer_names": [],
        "param_shapes": [SHAPES],
        "optimizer": None,
        "global_steps": 4,
        "skipped_steps": 1,
        "dp_world_size": 2,
        **changes,
    }


def write(folder: pathlib.Path, **changes) -> pathlib.Path:
    """A checkpoint of two ranks at stage 1, as far as it is looked at before its
    tensors."""
    torch.save(common(**changes), folder / "mp_rank_00_model_states.pt")
    for rank in range(2):
        torch.save(
            {"optimizer_state_dict": {"zero_stage": 1}}, optimizer_file(folder, rank)
        )
    return folder


def optimizer_file(folder: pathlib.Path, rank: int) -> pathlib.Path:
    return folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


class TestLayouts:
    """Cut into any number of ranks' parts as DeepSpeed cuts, with its padding, and put
    together again."""

    @given(
        shapes=st.lists(
            st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=5
        ),
        ranks=st.integers(1, 5),
        stage=st.sampled_from([1, 2, 3]),
    )
    @settings(deadline=None, max_examples=60, derandomize=True)
    def test_masters_and_moments_come_back(self, shapes, ranks, stage):
        named = {f"p{number}": tuple(shape) for number, shape in enumerate(shapes)}
        whole = {
            name: torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
            + 10 * number
            for number, (name, shape) in enumerate(named.items())
        }
        parts = by_parameter(whole, ranks) if stage == 3 else in_a_row(whole, ranks)
        key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
        optimizers = [
            {
                "zero_stage": stage,
                key: [part],
                "optimizer_state_dict": {
                    "state": {0: {"step": 3, "exp_avg": -part}},
                    "param_groups": [{"params": [0]}],
                },
            }
            for part in parts
        ]
        found = Checkpoint(pathlib.Path("x"), common(param_shapes=[named]), optimizers)
        assert deepspeed_files.counter(found) == 3
        masters = deepspeed_files.masters(found, [])
        moments = deepspeed_files.moments(found, [], "exp_avg")
        assert list(masters) == list(moments) == list(named)
        for name, tensor in whole.items():
            np.testing.assert_array_equal(masters[name], tensor, strict=True)
            np.testing.assert_array_equal(moments[name], -tensor, strict=True)
        assert deepspeed_files.moments(found, [], "square_avg") == {}


def in_a_row(whole, ranks):
    flat = torch.cat([tensor.flatten() for tensor in whole.values()])
    padded = torch.nn.functional.pad(
        flat, (0, -len(flat) % (2 * ranks)), value=float("nan")
    )
    return list(padded.chunk(ranks))


def by_parameter(whole, ranks):
    pieces = [in_pieces(tensor.flatten(), ranks) for tensor in whole.values()]
    return [torch.cat(mine) for mine in zip(*pieces)]


def in_pieces(flat, ranks):
    size = -(-len(flat) // ranks)
    return torch.nn.functional.pad(
        flat, (0, size * ranks - len(flat)), value=float("nan")
    ).split(size)


class TestRefused:
    def test_code_is_not_run(self, tmp_path):
        ran = tmp_path / "ran"
        write(tmp_path, module=Attack(f"touch {ran}"))
        with pytest.raises(
            UserError,
            match=r"cannot read .*mp_rank_00_model_states\.pt: it names posix\.system, "
            r"and a checkpoint may run no code",
        ):
            deepspeed_files.open_checkpoint(tmp_path)
        assert not ran.exists()

    def test_a_missing_rank_is_named(self, tmp_path):
        optimizer_file(write(tmp_path), 1).unlink()
        with pytest.raises(
            UserError,
            match=r"zero_pp_rank_1_mp_rank_00_optim_states\.pt of rank 1 is missing",
        ):
            deepspeed_files.open_checkpoint(tmp_path)

    def test_a_damaged_file_is_named(self, tmp_path):
        path = optimizer_file(write(tmp_path), 0)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(
            UserError,
            match=r"cannot read .*zero_pp_rank_0_mp_rank_00_optim_states\.pt: ",
        ):
            deepspeed_files.open_checkpoint(tmp_path)

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(UserError, match=r"mp_rank_00_model_states\.pt is missing"):
            deepspeed_files.open_checkpoint(tmp_path)
        torch.save([1], tmp_path / "mp_rank_00_model_states.pt")
        with pytest.raises(UserError, match="is no checkpoint of a DeepSpeed engine"):
            deepspeed_files.open_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (
                SHAPES | {"hidden.bias": (4,)},
                r"hidden\.bias is \(4,\) in .*, \(3,\) in the experiment's model",
            ),
            (
                {
                    name: shape
                    for name, shape in SHAPES.items()
                    if name != "output.bias"
                },
                r"output\.bias is missing in ",
            ),
            (
                SHAPES | {"more": (2,)},
                r"more is \(2,\) in .*, unknown in the experiment's model",
            ),
        ],
    )
    def test_another_model_names_the_first_tensor(self, tmp_path, shapes, message):
        found = deepspeed_files.open_checkpoint(write(tmp_path, param_shapes=[shapes]))
        with pytest.raises(UserError, match=message):
            deepspeed_files.check(found, model())

    def test_the_same_model_is_not(self, tmp_path):
        deepspeed_files.check(deepspeed_files.open_checkpoint(write(tmp_path)), model())


class Engine:
    """What `checkpoint` needs of DeepSpeed's engine: rank 0, which writes a file."""

    global_rank = 0

    def __init__(self, global_steps):
        self.global_steps = global_steps

    def save_checkpoint(self, folder, tag, save_latest):
        assert not save_latest
        (pathlib.Path(folder) / tag).mkdir(parents=True)


class TestSave:
    def test_keeps_the_newest_two(self, tmp_path):
        for steps in (1, 2, 10):
            checkpoint.save(tmp_path, Engine(steps))
        names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert names == ["latest", "step_000000002", "step_000000010"]
        assert checkpoint.newest(tmp_path).name == "step_000000010"
        assert checkpoint.newest(tmp_path, before=10).name == "step_000000002"

    def test_keeps_as_many_as_asked_for(self, tmp_path):
        for steps in (1, 2, 10, 12):
            checkpoint.save(tmp_path, Engine(steps), keep=3)
        assert not (tmp_path / "checkpoints" / "step_000000001").exists()
        assert (tmp_path / "checkpoints" / "step_000000002").exists()

    def test_a_save_that_was_killed_does_not_count(self, tmp_path):
        checkpoint.save(tmp_path, Engine(1))
        (tmp_path / "checkpoints" / "step_000000002").mkdir()
        assert checkpoint.newest(tmp_path).name == "step_000000001"

    @pytest.mark.parametrize("latest", [None, "", "step_000000003", "../elsewhere"])
    def test_none_there(self, tmp_path, latest):
        if latest is not None:
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "latest").write_text(latest)
        with pytest.raises(
            UserError,
            match=r"--resume: .* holds no checkpoint; train with --checkpoint_every",
        ):
            checkpoint.newest(tmp_path)

"""Somebody's checkpoints, there and back at every ZeRO stage, to the bit."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch

from jaxnn.experiment.files import artifacts
from jaxnn.experiment.ports import free_port
from parity.own.environment import of_a_port
from parity.own.port_file import read_names
from tests.parity.own_checkpoint.converting import tags
from tests.parity.own_checkpoint.job import CASES, STEPS
from torch_ref.foreign import groups, opening, state

LEAVES = {
    "first/kernel": "first.weight",
    "first/bias": "first.bias",
    "norm/scale": "norm.weight",
    "norm/bias": "norm.bias",
    "fixed/bias": "fixed.bias",
    "last/0": "last.weight",
    "last/1": "first.weight",
}
"""Leaf of the port -> trained parameter of torch."""
TRANSPOSED = ("first/kernel", "last/0")
MOMENTS = {
    "plain": {"1/0/mu": "exp_avg", "1/0/nu": "exp_avg_sq"},
    "fused": {"1/0/mu": "exp_avg", "1/0/nu": "exp_avg_sq"},
    "unfused": {"0/trace": "momentum_buffer"},
    "stage1": {
        f"inner_opt_state/inner_state/inner_state/inner_state/0/{field}": key
        for field, key in (("mu", "exp_avg"), ("nu", "exp_avg_sq"))
    },
    "two1": {"1/0/mu": "exp_avg", "1/0/nu": "exp_avg_sq"},
    "two2": {"0/nu": "square_avg", "1/trace": "momentum_buffer"},
    "two3": {"1/0/mu": "exp_avg", "1/0/nu": "exp_avg_sq"},
}
"""Case -> part of its optax state -> torch's key of the same moment."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of every case."""
    folder, running = tmp_path_factory.mktemp("foreign"), []
    for ranks in (1, 2):
        names = ",".join(name for name, case in CASES.items() if case.ranks == ranks)
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(ranks),
            "LOCAL_SIZE": str(ranks),
        }
        command = [sys.executable, "-m", "tests.parity.own_checkpoint.job"]
        running += [
            subprocess.Popen(
                [*command, str(folder), names],
                env={**os.environ, **shared, "RANK": str(r), "LOCAL_RANK": str(r)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for r in range(ranks)
        ]
    said = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)[-3000:]
    return folder


def held(folder):
    """What a checkpoint holds: arrays, and all else."""
    opened = opening.open_anyones(folder)
    named = groups.of(opened, None)
    about = state.describe(opened, named)
    return state.arrays_of(opened, named), about | {"folder": None}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert [n for n in left if left[n].tobytes() != right[n].tobytes()] == []


def as_leaf(leaf, array):
    return array.T if leaf in TRANSPOSED else array


@pytest.mark.parametrize("name", CASES)
class TestCase:
    def test_tree_holds_what_deepspeeds_own_readers_say(self, runs, name):
        tree = artifacts.read_arrays(runs / name / "tree" / "state.safetensors", "")
        truth = torch.load(runs / name / "truth.pt", weights_only=True)
        for leaf, param in LEAVES.items():
            wanted = as_leaf(leaf, truth[f"params/{param}"].numpy())
            np.testing.assert_array_equal(tree[f"params/{leaf}"], wanted, strict=True)
            for part, key in MOMENTS[name].items():
                wanted = as_leaf(leaf, truth[f"moments/{key}/{param}"].numpy())
                found = tree[f"opt_state/{part}/{leaf}"]
                np.testing.assert_array_equal(found, wanted, strict=True)
        np.testing.assert_array_equal(tree["params/offset"], np.float32([0.5] * 3))
        assert not any(np.any(a) for n, a in tree.items() if n.endswith("fixed/kernel")
                       and "opt_state" in n)  # fmt: skip

    def test_back_in_other_files_it_is_the_checkpoint(self, runs, name):
        (arrays, about), (again, about_again) = (
            held(runs / name / folder) for folder in ("ckpt", "back")
        )
        assert_equal(arrays, again)
        assert about == about_again
        # Tag and files are the template's.
        assert tags(runs / name / "back") == tags(runs / name / "whole")

    def test_the_next_step_is_that_of_an_unbroken_run(self, runs, name):
        (arrays, about), (again, about_again) = (
            held(runs / name / folder) for folder in ("whole", "resumed")
        )
        assert_equal(arrays, again)
        assert about == about_again
        assert about["counters"]["step"] == STEPS + 1

    def test_sixteen_bit_weights_are_those_of_the_checkpoint(self, runs, name):
        before, after = (
            opening.open_anyones(runs / name / folder).commons
            for folder in ("ckpt", "back")
        )
        for left, right in zip(before, after):
            for tensor in left["module"]:
                assert torch.equal(left["module"][tensor], right["module"][tensor])

    def test_plain_orbax_restores_it(self, runs, name):
        folder = runs / name / "tree"
        arrays = artifacts.read_arrays(folder / "state.safetensors", "")
        like = restored(folder.parent, arrays)
        flat, _ = jax.tree_util.tree_flatten_with_path(like)
        found = {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
            for path, leaf in flat
        }
        assert_equal(arrays, found)


def restored(folder, arrays):
    """The tree as a user restores it: with the state of their optimizer."""
    port = read_names(folder / "port.py", ("convert", "optimizer"))
    opened = opening.open_anyones(folder / "ckpt")
    torch_state = {n: np.zeros(t.shape) for n, t in shapes_of(opened).items()}
    params = jax.tree.map(jnp.float32, port["convert"](torch_state))
    # A buffer is no parameter.
    given = {key: leaf for key, leaf in params.items() if key != "offset"}
    scalars = {name: array for name, array in arrays.items() if "/" not in name}
    like = {"params": params, "opt_state": port["optimizer"].init(given), **scalars}
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((folder / "tree" / "orbax").resolve(), like)


def shapes_of(opened):
    arrays = state.arrays_of(opened, groups.of(opened, None))
    found = {n.partition("/")[2]: a for n, a in arrays.items() if "moments" not in n}
    return found | {"tied.weight": found["first.weight"]}


class TestCounters:
    @pytest.mark.parametrize(
        ("name", "step", "updates", "optimizer_step"),
        [
            ("plain", STEPS, STEPS, STEPS),
            # DeepSpeed's update before training (MISMATCHES D2).
            ("fused", STEPS, STEPS, STEPS + 1),
            # Three steps overflowed.
            ("stage1", STEPS, 1, 1),
            ("two3", STEPS, STEPS, STEPS),
        ],
    )
    def test_adam_counts_torchs_updates_schedules_count_applied_ones(
        self, runs, name, step, updates, optimizer_step
    ):
        tree = artifacts.read_arrays(runs / name / "tree" / "state.safetensors", "")
        scalars = (tree["step"], tree["updates"], tree["optimizer_step"])
        assert scalars == (step, updates, optimizer_step)
        if name == "stage1":
            outer, masked = "opt_state/inner_opt_state", "inner_state/inner_state"
            assert tree["opt_state/gradient_step"] == updates
            assert tree["opt_state/mini_step"] == 0
            assert tree[f"{outer}/total_notfinite"] == step - updates
            assert tree[f"{outer}/{masked}/count"] == updates
            rate = tree[f"{outer}/{masked}/hyperparams/learning_rate"]
            assert rate == np.float32(0.01)
            assert tree[f"{outer}/{masked}/inner_state/0/count"] == optimizer_step
            assert tree["loss_scale"] == 2.0**17
            assert tree["clean_steps"] == 1
        else:
            assert tree["opt_state/1/0/count"] == optimizer_step
            assert tree["opt_state/1/2/count"] == updates

    def test_what_differs_is_said(self, runs):
        said = (runs / "fused" / "said").read_text()
        assert "step 4, updates 4, optimizer step 5, loss scale" in said
        assert "counts 5 updates of 4, and so does Adam's count" in said
        assert "MISMATCHES D2" in said
        assert "note: fixed/kernel is frozen in torch" in said


class TestTraining:
    def test_optax_goes_on_where_torch_was(self, runs):
        """One step of optax from the tree is DeepSpeed's, on its own gradients."""
        folder = runs / "plain"
        arrays = artifacts.read_arrays(folder / "tree" / "state.safetensors", "")
        tree = restored(folder, arrays)
        grads = torch.load(folder / "gradients.pt", weights_only=True)
        after, _ = held(folder / "whole")
        given = {k: v for k, v in tree["params"].items() if k != "offset"}
        zeros = jax.tree.map(jnp.zeros_like, given)
        flat = {
            leaf: jnp.asarray(as_leaf(leaf, grads[param].numpy()))
            for leaf, param in LEAVES.items()
        }
        zeros["first"] = {k: flat[f"first/{k}"] for k in ("kernel", "bias")}
        zeros["norm"] = {k: flat[f"norm/{k}"] for k in ("scale", "bias")}
        zeros["fixed"]["bias"] = flat["fixed/bias"]
        zeros["last"] = [flat["last/0"], flat["last/1"]]
        port = read_names(folder / "port.py", ("optimizer",))
        with of_a_port():
            updates, _ = port["optimizer"].update(zeros, tree["opt_state"], given)
        moved = optax.apply_updates(given, updates)
        found = {"first/kernel": moved["first"]["kernel"], "last/1": moved["last"][1]}
        for leaf, value in found.items():
            wanted = as_leaf(leaf, after[f"params/{LEAVES[leaf]}"])
            # An ulp of the largest.
            np.testing.assert_allclose(value, wanted, rtol=0, atol=6e-8)

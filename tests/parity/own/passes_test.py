"""Tests of parity/own/passes.py: recorded forward passes, and a port's over them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from parity.noise import FLOAT32, FLOAT64
from parity.own.environment import of_a_port
from parity.own.networks.function import FunctionNetwork
from parity.own.passes import Objective, Pass, cast, passes_of, returned_loss
from parity.own.tree import Structure

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
STRUCTURE = Structure({"frozen": X, "kernel": X})
LEAVES = {"kernel": X.T.copy(), "frozen": np.ones(3, np.float32)}
FLOAT16 = np.dtype(np.float16)
BF16 = np.dtype(ml_dtypes.bfloat16)


def objective(loss=lambda outputs, target: jnp.mean((outputs - target) ** 2)):
    def apply(params, x):
        return jnp.tanh(x @ params["kernel"]) * params["frozen"].sum()

    return Objective(FunctionNetwork(apply, STRUCTURE), loss, ["kernel"])


def one_pass():
    return Pass({"x": X}, [np.float32(0.5)], [], np.float32(1))


class TestPassesOf:
    def test_reads_what_each_was_given(self):
        step = {
            "passes/0/inputs/x": X,
            "passes/0/weight": np.float32(0.5),
            **{f"passes/1/targets/{n}": np.asarray(n) for n in range(12)},
            "passes/1/masks/0": X > 0,
            "passes/1/weight": np.float32(0.25),
        }
        first, second = passes_of(step, 2)
        np.testing.assert_array_equal(first.inputs["x"], X)
        assert [int(target) for target in second.targets] == list(range(12))
        assert len(second.masks) == 1
        assert (float(first.weight), float(second.weight)) == (0.5, 0.25)

    def test_refuses_a_digest(self):
        step = {"passes/0/digests/x": X, "passes/0/weight": np.float32(1)}
        with pytest.raises(UserError, match=r"input x was too large .* limit=BYTES"):
            passes_of(step, 1)


class TestObjective:
    def test_gradients_of_what_is_trained(self):
        loss, call, grads = objective()(LEAVES, one_pass(), np.float32(1), FLOAT32)
        expected = np.mean((np.tanh(X @ X.T) * 3 - 0.5) ** 2)
        np.testing.assert_allclose(loss, expected, 1e-5)
        assert set(grads) == {"kernel"}
        assert call.outputs == ()

    def test_a_factor_multiplies_gradients_alone(self):
        plain, scaled = (
            objective()(LEAVES, one_pass(), np.float32(factor), FLOAT32)
            for factor in (1, 1024)
        )
        assert plain[0] == scaled[0]
        np.testing.assert_array_equal(plain[2]["kernel"] * 1024, scaled[2]["kernel"])

    @pytest.mark.parametrize(("scale", "is_finite"), [(2**15, True), (2**16, False)])
    def test_the_whole_scale_enters_a_loss_in_half(self, scale, is_finite):
        """DeepSpeed divides by the accumulation steps before it scales."""
        leaves = {name: leaf.astype(np.float16) for name, leaf in LEAVES.items()}
        half = one_pass()._replace(weight=np.float32(0.5))
        with of_a_port():
            _, _, grads = objective()(leaves, half, np.float32(scale), FLOAT16)
        assert np.isfinite(grads["kernel"]).all() == is_finite

    @pytest.mark.parametrize(
        ("dtype", "of_loss"),
        [(FLOAT64, np.float64), (FLOAT32, np.float32), (BF16, np.float32)],
    )
    def test_computes_in_a_dtype(self, dtype, of_loss):
        with of_a_port(), jax.enable_x64(dtype == FLOAT64):
            leaves = {name: leaf.astype(dtype) for name, leaf in LEAVES.items()}
            factor = np.asarray(1, of_loss)
            loss, _, grads = objective()(leaves, one_pass(), factor, dtype)
        assert (loss.dtype, grads["kernel"].dtype) == (of_loss, dtype)

    def test_nudged_it_is_within_rounding(self):
        plain, moved = (
            objective()(LEAVES, one_pass(), np.float32(1), FLOAT32, nudge)[2]["kernel"]
            for nudge in (None, (0, FLOAT32))
        )
        assert 0 < np.abs(plain - moved).max() < 1e-4

    def test_a_loss_may_be_a_number_of_python(self):
        loss = objective(lambda outputs: 0.0)(
            LEAVES, one_pass(), np.float32(1), FLOAT32
        )[0]
        assert float(loss) == 0.0


class Output(NamedTuple):
    logits: jax.Array
    loss: jax.Array


class TestReturnedLoss:
    @pytest.mark.parametrize(
        "outputs",
        [
            jnp.float32(3),
            {"logits": X, "loss": jnp.float32(3)},
            (jnp.float32(3), X),
            Output(X, jnp.float32(3)),
        ],
    )
    def test_finds_it(self, outputs):
        assert float(returned_loss(outputs)) == 3

    @pytest.mark.parametrize("outputs", [X, (X, X), {"logits": X}, ()])
    def test_refuses_outputs_without_one(self, outputs):
        with pytest.raises(UserError, match="the model returns none; give loss"):
            returned_loss(outputs)


class TestCast:
    def test_whole_numbers_and_masks_stay(self):
        tree = cast({"x": X, "ids": np.arange(3), "mask": X > 0}, BF16)
        assert [tree[n].dtype for n in ("x", "ids", "mask")] == [BF16, np.int64, bool]

"""A trace and a step of one's own, judged: a linear model under SGD with momentum,
recorded in NumPy float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, Writer, grad_norm
from parity import own

RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((32, width)).astype(np.float32) for width in (5, 2))
RATE, STEPS, ROWS = np.float32(0.1), 4, 8


def write(folder, name="weight", precision="fp32", **fault):
    """Records the run; a fault multiplies what is written of one kind at step 2."""
    writer = Writer(
        folder,
        "full",
        dict(stack="mine", precision=precision, world_size=1, flags=[], versions={}),
    )
    w, v = (
        RNG.standard_normal((5, 2)).astype(np.float32) * 0 + np.float32(0.3),
        np.zeros((5, 2), np.float32),
    )
    for step in range(STEPS):
        ids = np.arange(ROWS, dtype=np.int32) + ROWS * step
        error = X[ids] @ w - Y[ids]
        grad = 2 * X[ids].T @ error / np.float32(error.size)
        new_v = np.float32(0.9) * v + grad
        new_w = w - RATE * new_v
        kinds = {
            "params": w,
            "grads": grad,
            "moments/first": v,
            "updated": new_w,
            "updated_moments/first": new_v,
        }
        factor = fault if step == 2 else {}
        writer.write(
            step,
            {
                **{
                    f"{kind}/{name}": array
                    * np.float32(factor.get(kind.replace("/", "_"), 1))
                    for kind, array in kinds.items()
                },
                "batch/ids": ids,
                "loss": np.float32(np.mean(error**2)),
                "grad_norm": grad_norm([grad], False),
                "loss_scale": np.float32(1),
                "skipped": np.bool_(False),
                "learning_rate": RATE,
                "optimizer_step": np.int32(step),
            },
        )
        w, v = new_w, new_v
    return Reader(folder)


def gradients(params, step, dtype):
    x, y = (jnp.asarray(array[step["batch/ids"]], dtype) for array in (X, Y))
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((x @ p["weight"] - y) ** 2))(
        {name: jnp.asarray(array) for name, array in params.items()}
    )
    return {"loss": loss, **{f"grads/{name}": grad for name, grad in grads.items()}}


def update(params, grads, moments, step, dtype, momentum=0.9):
    new_v = np.asarray(momentum, dtype) * moments["first/weight"] + grads["weight"]
    new_w = params["weight"] - step["learning_rate"].astype(dtype) * new_v
    return {"updated/weight": new_w, "updated_moments/first/weight": new_v}


class TestJudge:
    def test_the_same_step_is_at_parity(self, tmp_path):
        verdict = own.judge_step(write(tmp_path / "t"), gradients, update).as_json()
        assert verdict["verdict"] == "parity"
        assert (
            verdict["quantities"]["grads"]["compared"]
            == verdict["quantities"]["updated"]["compared"]
            == STEPS
        )

    @pytest.mark.parametrize(
        ("fault", "quantity"),
        [
            ("grads", "grads"),
            ("updated", "updated"),
            ("updated_moments_first", "moments"),
        ],
    )
    def test_finds_a_fault_of_a_hundred_thousandth(self, tmp_path, fault, quantity):
        verdict = own.judge_step(
            write(tmp_path / "t", **{fault: 1.00001}), gradients, update
        ).as_json()
        first = verdict["first_divergence"]
        assert (first["step"], first["quantity"], first["tensor"].split("/")[-1]) == (
            2,
            quantity,
            "weight",
        )

    def test_finds_a_state_that_does_not_go_on(self, tmp_path):
        verdict = own.judge_step(
            write(tmp_path / "t", params=1.5), gradients, update
        ).as_json()
        assert (
            verdict["first_divergence"]["step"],
            verdict["first_divergence"]["quantity"],
        ) == (2, "params")

    def test_another_momentum_is_no_parity(self, tmp_path):
        def other(*args):
            return update(*args, momentum=0.89)

        assert (
            own.judge_step(write(tmp_path / "t"), gradients, other).as_json()[
                "first_divergence"
            ]["quantity"]
            == "moments"
        )

    def test_without_an_update_the_gradients_alone_are_judged(self, tmp_path):
        verdict = own.judge_step(
            write(tmp_path / "t", updated=2.0), gradients
        ).as_json()
        assert verdict["quantities"]["updated"]["compared"] == 0

    def test_maps_names(self, tmp_path):
        assert (
            own.judge_step(
                write(tmp_path / "t", "layer.weight"),
                gradients,
                update,
                {"layer.weight": "weight"},
            ).as_json()["verdict"]
            == "parity"
        )

    def test_suggests_what_a_name_may_be(self, tmp_path):
        def renamed(params, step, dtype):
            outputs = gradients({"weight": params["layer.weight"]}, step, dtype)
            return {
                name.replace("weight", "kernel"): array
                for name, array in outputs.items()
            }

        with pytest.raises(
            UserError, match=r"by shape it may be \{'layer\.weight': 'kernel'\}"
        ):
            own.judge_step(write(tmp_path / "t", "layer.weight"), renamed)

    def test_refuses_an_unknown_precision(self, tmp_path):
        with pytest.raises(UserError, match="precision 'int8' is none of"):
            own.judge_step(write(tmp_path / "t", precision="int8"), gradients)

    def test_refuses_an_empty_trace(self, tmp_path):
        Writer(
            tmp_path / "t",
            "full",
            dict(stack="m", precision="fp32", world_size=1, flags=[], versions={}),
        )
        with pytest.raises(UserError, match="no tensor of 0 steps"):
            own.judge_step(Reader(tmp_path / "t"), gradients)

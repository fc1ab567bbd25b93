"""Optax states of many optimizers: which array is which of torch's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn.experiment.errors import UserError
from parity.own.tree import Structure
from parity.own_checkpoint import optax_state

PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "b": [jnp.ones(4)]}
SHAPES = {"a/bias": (3,), "a/kernel": (2, 3), "b/0": (4,)}
ADAM = ("exp_avg", "exp_avg_sq")
LABELS = {"a": {"kernel": "x", "bias": "y"}, "b": ["x"]}


class OwnState(NamedTuple):
    """Of somebody's own transformation."""

    count: Any
    mu: Any
    max_exp_avg_sq: Any
    other: Any


def own():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    return OwnState(jnp.int32(0), zeros, zeros, zeros)


def found(optimizer, keys, params=PARAMS, prefix=""):
    state = optimizer() if optimizer is own else optimizer.init(params)
    return optax_state.find(state, Structure(params, prefix), SHAPES, keys)


def parts(found):
    """{(torch's key, field)} of the moments."""
    return {
        (slot.key, path.removesuffix(f"/{slot.leaf}").rpartition("/")[2])
        for path, slot in found.slots.items()
        if slot.kind == "moment"
    }


@pytest.mark.parametrize(
    ("optimizer", "keys", "moments"),
    [
        (optax.adamw(0.1), ADAM, {("exp_avg", "mu"), ("exp_avg_sq", "nu")}),
        (optax.lamb(0.1), ADAM, {("exp_avg", "mu"), ("exp_avg_sq", "nu")}),
        (
            optax.adamax(0.1),
            ("exp_avg", "exp_inf"),
            {("exp_avg", "mu"), ("exp_inf", "nu")},
        ),
        (optax.sgd(0.1, 0.9), ("momentum_buffer",), {("momentum_buffer", "trace")}),
        (optax.lion(0.1), ADAM, {("exp_avg", "mu")}),
        (optax.rmsprop(0.1), ("square_avg",), {("square_avg", "nu")}),
        (
            optax.rmsprop(0.1, centered=True),
            ("square_avg", "grad_avg"),
            {("square_avg", "nu"), ("grad_avg", "mu")},
        ),
        (optax.adagrad(0.1), ("sum",), {("sum", "sum_of_squares")}),
        # DeepSpeed's Adagrad on the CPU.
        (optax.adagrad(0.1), ("exp_avg_sq",), {("exp_avg_sq", "sum_of_squares")}),
        (optax.adagrad(0.1), ADAM, set()),
        (
            optax.adadelta(0.1),
            ("square_avg", "acc_delta"),
            {("square_avg", "e_g"), ("acc_delta", "e_x")},
        ),
        # Its second moment is of differences, no other optimizer has that.
        (optax.adabelief(0.1), ADAM, set()),
        (
            own,
            (*ADAM, "max_exp_avg_sq"),
            {("exp_avg", "mu"), ("max_exp_avg_sq", "max_exp_avg_sq")},
        ),
    ],
)
def test_moments(optimizer, keys, moments):
    assert parts(found(optimizer, keys)) == moments


@pytest.mark.parametrize(
    ("optimizer", "wanted"),
    [
        (optax.adamw(0.1), ["optimizer_step"]),
        (optax.adamw(lambda count: 0.1), ["optimizer_step", "updates"]),
        (optax.sgd(lambda count: 0.1), ["updates"]),
        (
            optax.MultiSteps(optax.adam(0.1), 4),
            ["optimizer_step", "updates"],
        ),
        (
            optax.apply_if_finite(optax.adam(0.1), 4),
            ["optimizer_step", "skipped"],
        ),
        (
            optax.inject_hyperparams(optax.adam)(learning_rate=lambda count: 0.1),
            ["optimizer_step", "updates", "updates"],
        ),
        (own, ["optimizer_step"]),
    ],
)
def test_counters(optimizer, wanted):
    slots = found(optimizer, ADAM).slots.values()
    assert sorted(s.key for s in slots if s.kind == "counter") == wanted


def test_an_injected_rate_is_torchs_and_that_of_a_schedule_is_computed():
    fixed = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    moving = optax.inject_hyperparams(optax.adam)(learning_rate=lambda count: 0.1)
    assert "rate" in {slot.kind for slot in found(fixed, ADAM).slots.values()}
    assert "rate" not in {slot.kind for slot in found(moving, ADAM).slots.values()}


def test_masks_and_partitions_hold_some_of_the_leaves():
    optimizers = {"x": optax.adam(0.1), "y": optax.sgd(0.1, 0.9)}
    optimizer = optax.multi_transform(optimizers, LABELS)
    slots = found(optimizer, (*ADAM, "momentum_buffer")).slots
    leaves = {(s.key, s.leaf) for s in slots.values() if s.kind == "moment"}
    assert leaves == {
        ("exp_avg", "a/kernel"),
        ("exp_avg", "b/0"),
        ("exp_avg_sq", "a/kernel"),
        ("exp_avg_sq", "b/0"),
        ("momentum_buffer", "a/bias"),
    }


def test_leaves_of_flax_variables_keep_their_place():
    slots = optax_state.find(
        optax.adam(0.1).init({"w": jnp.ones(2)}),
        Structure({"w": jnp.ones(2)}, "params/"),
        {"params/w": (2,)},
        ADAM,
    ).slots
    assert slots["0/mu/w"] == optax_state.Slot("moment", "exp_avg", "params/w")


@pytest.mark.parametrize(
    ("optimizer", "unmatched"),
    [
        (optax.adam(0.1), []),
        (optax.MultiSteps(optax.apply_if_finite(optax.adam(0.1), 4), 2), []),
        (optax.amsgrad(0.1), ["0/nu_max (ScaleByAmsgradState.nu_max)"]),
        (
            optax.chain(optax.ema(0.9)),
            [f"0/{f} (EmaState.{f})" for f in ("count", "ema")],
        ),
        (own, ["other (OwnState.other)"]),
        (
            optax.add_noise(0.1, 0.1, 0),
            [f"{f} (AddNoiseState.{f})" for f in ("count", "rng_key")],
        ),
    ],
)
def test_what_has_no_counterpart(optimizer, unmatched):
    assert found(optimizer, (*ADAM, "max_exp_avg_sq")).unmatched == unmatched


def test_parts_of_trees_of_other_shapes_are_said_once():
    unmatched = found(optax.adafactor(0.1), ADAM).unmatched
    assert "0/v (FactoredState.v)" in unmatched
    assert len(unmatched) == len(set(unmatched)) < 8


def test_an_empty_state():
    assert optax_state.named(optax.sgd(0.1).init(PARAMS)) == {}
    assert found(optax.sgd(0.1), ADAM) == ({}, [])


def test_one_counter_has_one_value():
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale_by_adam())
    slots = found(optimizer, ADAM).slots
    arrays = {"0/count": np.int32(3), "1/count": np.int32(3)}
    assert optax_state.counted(slots, arrays) == {"optimizer_step": 3}
    with pytest.raises(
        UserError, match="opt_state/1/count is 4, opt_state/0/count is 3"
    ):
        optax_state.counted(slots, arrays | {"1/count": np.int32(4)})

"""Tests of parity/own/optax_feed.py: optimizers that are fed recorded gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn.experiment.errors import UserError
from parity.noise import FLOAT32, FLOAT64
from parity.own.environment import of_a_port
from parity.own.optax_feed import OptaxFeed
from parity.own.tree import Structure, only

RNG = np.random.default_rng(0)
TREE = {"a": {"kernel": np.zeros((2, 3))}, "b": np.zeros(4)}
STRUCTURE = Structure(TREE)
NAMES = ["a/kernel", "b"]
STEPS = 4


def drawn():
    shapes = {name: leaf.shape for name, leaf in STRUCTURE.flatten(TREE).items()}
    return {n: RNG.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


PARAMS, GRADS = drawn(), [drawn() for _ in range(STEPS)]


def labels(params):
    return {"a": {"kernel": "decayed"}, "b": "plain"}


class Counted(NamedTuple):
    count: Any


def with_numbers():
    """A transformation whose state holds a number of Python."""

    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -g, grads), Counted(state.count + 1)

    return optax.GradientTransformation(lambda params: Counted(0), update)


SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
OPTIMIZERS = {
    "adam": (lambda: optax.adam(0.1), {"first", "second"}),
    "adamw": (lambda: optax.adamw(SCHEDULE, weight_decay=0.1), {"first", "second"}),
    "masked decay": (
        lambda: optax.adamw(0.1, mask={"a": {"kernel": True}, "b": False}),
        {"first", "second"},
    ),
    "multi_transform": (
        lambda: optax.multi_transform(
            {"decayed": optax.adamw(0.1), "plain": optax.adam(0.2)}, labels
        ),
        {"first", "second"},
    ),
    "clipped": (
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
        {"first", "second"},
    ),
    "sgd": (lambda: optax.sgd(0.1), set()),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9, nesterov=True), {"first"}),
    "rmsprop": (lambda: optax.rmsprop(0.1), {"second"}),
    "centred rmsprop": (
        lambda: optax.rmsprop(0.1, centered=True, momentum=0.9),
        {"first", "second"},
    ),
    "adagrad": (lambda: optax.adagrad(0.1), {"second"}),
    "lion": (lambda: optax.lion(0.1), {"first"}),
    "injected": (
        lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=SCHEDULE),
        {"first", "second"},
    ),
    "python state": (with_numbers, set()),
}


@pytest.fixture(autouse=True)
def _of_a_port():
    with of_a_port():
        yield


def by_hand(optimizer):
    """Yields parameters and state after each step of a plain training loop."""
    params = STRUCTURE.unflatten({n: jnp.asarray(p) for n, p in PARAMS.items()})
    state = optimizer.init(params)
    for grads in GRADS:
        updates, state = optimizer.update(STRUCTURE.unflatten(grads), state, params)
        params = optax.apply_updates(params, updates)
        yield STRUCTURE.flatten(params), state


class TestOptaxFeed:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_steps_as_a_training_loop_does(self, name):
        make, kinds = OPTIMIZERS[name]
        feed, params = OptaxFeed(make(), STRUCTURE, PARAMS), PARAMS
        for grads, (expected, _) in zip(GRADS, by_hand(make()), strict=True):
            narrow, wide = (feed.update(params, grads, d) for d in (FLOAT32, FLOAT64))
            assert {n.split("/")[1] for n in narrow if "moments" in n} == kinds
            assert narrow.keys() == wide.keys()
            for leaf in NAMES:
                found = narrow[f"updated/{leaf}"]
                np.testing.assert_allclose(found, expected[leaf], 2e-6, 1e-6)
                np.testing.assert_allclose(wide[f"updated/{leaf}"], found, 1e-5, 1e-6)
            feed.advance(params, grads)
            params = {n: np.asarray(leaf) for n, leaf in expected.items()}

    def test_the_wide_state_is_wide(self):
        feed = OptaxFeed(optax.adam(0.1), STRUCTURE, PARAMS)
        third = {n: g.astype(np.float64) / 3 for n, g in GRADS[0].items()}
        moment = feed.update(PARAMS, third, FLOAT64)["updated_moments/first/b"]
        np.testing.assert_allclose(moment, 0.1 * third["b"], 1e-14)

    def test_moments_are_those_of_the_state(self):
        feed = OptaxFeed(optax.adam(0.1), STRUCTURE, PARAMS)
        found = feed.update(PARAMS, GRADS[0], FLOAT32)
        _, (adam, _) = next(by_hand(optax.adam(0.1)))
        np.testing.assert_array_equal(found["updated_moments/first/b"], adam.mu["b"])
        expected = adam.nu["a"]["kernel"]
        moment = found["updated_moments/second/a/kernel"]
        np.testing.assert_allclose(moment, expected, 1e-6)

    @pytest.mark.parametrize("name", ["masked decay", "multi_transform"])
    def test_a_divided_optimizer_has_the_moments_of_every_leaf(self, name):
        feed = OptaxFeed(OPTIMIZERS[name][0](), STRUCTURE, PARAMS)
        found = feed.update(PARAMS, GRADS[0], FLOAT32)
        assert {f"updated_moments/first/{leaf}" for leaf in NAMES} <= found.keys()

    def test_asking_leaves_the_state_as_it_is(self):
        feed = OptaxFeed(optax.adam(0.1), STRUCTURE, PARAMS)
        first, again = (feed.update(PARAMS, GRADS[0], FLOAT32) for _ in range(2))
        np.testing.assert_array_equal(first["updated/b"], again["updated/b"])

    def test_leaves_that_no_optimizer_has(self):
        structure = only(Structure({"params": TREE, "batch_stats": {"mean": 0}}), _ALL)
        params, grads = (
            {f"params/{name}": leaf for name, leaf in leaves.items()}
            for leaves in (PARAMS, GRADS[0])
        )
        feed = OptaxFeed(optax.adam(0.1), structure, params)
        found = feed.update(params, grads, FLOAT32)
        assert "updated_moments/second/params/a/kernel" in found
        assert {n for n in found if n.startswith("updated/")} == {
            f"updated/params/{name}" for name in NAMES
        }

    @pytest.mark.parametrize("other", [0.1, optax.constant_schedule(0.1), optax.adam])
    def test_refuses_what_is_no_optimizer(self, other):
        with pytest.raises(UserError, match="has no init and update; give an optax"):
            OptaxFeed(other, STRUCTURE, PARAMS)

    def test_an_optimizer_that_fails_says_so_in_one_line(self):
        def fail(grads, state, params=None):
            raise ValueError("two\nlines")

        broken = optax.GradientTransformation(lambda params: (), fail)
        feed = OptaxFeed(broken, STRUCTURE, PARAMS)
        with pytest.raises(UserError, match=r"^optimizer: .*ValueError: two lines"):
            feed.update(PARAMS, GRADS[0], FLOAT32)


_ALL = {f"params/{name}" for name in NAMES}

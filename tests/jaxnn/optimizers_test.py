"""Tests of jaxnn/optimizers.py against float64 loops, torch's optimizers and
DeepSpeed's clipping."""

import functools
import types
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import torch_ref.optimizers
from jaxnn import optimizers, train_step
from jaxnn.experiment import catalogue
from jaxnn.experiment.files.trace import flatten, unflatten
from jaxnn.experiment.flags.config import Experiment

STEPS, RATE = 10, 0.01
SHAPES = {
    "hidden_0/kernel": (3, 2),
    "hidden_0/bias": (2,),
    "norm/scale": (2,),
    "tokens/embedding": (2, 2),
}
DECAYED = {"hidden_0/kernel", "tokens/embedding"}
START = {
    name: np.random.default_rng(1).standard_normal(shape)
    for name, shape in SHAPES.items()
}
START["tokens/embedding"][0] = 0  # where |w| has no slope
GRADIENTS = [
    {
        name: size * np.random.default_rng(number).standard_normal(shape)
        for name, shape in SHAPES.items()
    }
    for number, size in enumerate(np.logspace(0, -6, STEPS))
]
DOUBLE, SINGLE = np.finfo(np.float64).eps, np.finfo(np.float32).eps

PLAIN = Experiment(
    learning_rate=RATE,
    fused_adam=False,
    momentum=0.8,
    adam_b1=0.8,
    adam_b2=0.95,
    adam_eps=1e-6,
    rmsprop_decay=0.9,
    rmsprop_eps=1e-6,
    adagrad_eps=1e-6,
    adagrad_initial=0.01,
)
OPTIONS = {
    "plain": {},
    "clipped": dict(clip_norm=0.5, l2=0.1),
    "masked": dict(l1=0.05, l2=0.1, decay_all=False),
}
every_optimizer = pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
every_option = pytest.mark.parametrize("option", OPTIONS)


def experiment_of(name, option):
    decay = {} if option == "plain" or name != "adamw" else dict(weight_decay=0.2)
    return PLAIN.replace(optimizer=name, **OPTIONS[option], **decay)


def tolerance(eps):
    """A step rounds the parameters once, and its direction, at most 8 here, is good to
    16 roundings."""
    return (
        STEPS
        * eps
        * (max(np.abs(array).max() for array in START.values()) + 16 * 8 * RATE)
    )


@functools.cache
def train(experiment, dtype):
    """Flat params after each step, and the final state."""
    with jax.enable_x64(dtype == jnp.float64):
        return train_in(experiment, dtype)


def train_in(experiment, dtype):
    optimizer = optimizers.OPTIMIZERS[experiment.optimizer](experiment)

    @jax.jit
    def step(params, state, grads):
        rate = jnp.asarray(RATE, dtype)
        return train_step.update(optimizer, params, state, grads, rate)

    params = cast(START, dtype)
    state, path = optimizer.transform.init(params), []
    for grads in GRADIENTS:
        params, state = step(params, state, cast(grads, dtype))
        path.append(
            {name: np.asarray(array) for name, array in flatten(params).items()}
        )
    return path, state


def cast(flat, dtype):
    return unflatten({name: jnp.asarray(array, dtype) for name, array in flat.items()})


def by_hand(experiment):
    """Flat params after each step, and what each tensor's rule remembers at the end; in
    float64."""
    params, path = dict(START), []
    memories = {name: {"first": 0.0, "second": 0.0} for name in START}
    if experiment.optimizer == "adagrad":
        memories = {name: {"second": experiment.adagrad_initial} for name in START}
    for t, grads in enumerate(GRADIENTS, 1):
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        shrink = (
            max(1, (norm + 1e-6) / experiment.clip_norm) if experiment.clip_norm else 1
        )
        for name, w in params.items():
            share = float(experiment.decay_all or name in DECAYED)
            g = grads[name] / shrink + share * (
                experiment.l1 * np.sign(w) + experiment.l2 * w
            )
            direction = RULES[experiment.optimizer](experiment, g, memories[name], t)
            rate = 1 if experiment.optimizer == "sutskever_momentum" else RATE
            params[name] = w - rate * (direction + share * experiment.weight_decay * w)
        path.append(dict(params))
    return path, memories


def sgd_by_hand(e, g, memory, t):
    return g


def momentum_by_hand(e, g, memory, t):
    memory["first"] = e.momentum * memory["first"] + g
    return memory["first"]


def nesterov_by_hand(e, g, memory, t):
    return g + e.momentum * momentum_by_hand(e, g, memory, t)


def ema_momentum_by_hand(e, g, memory, t):
    memory["first"] = e.momentum * memory["first"] + (1 - e.momentum) * g
    return memory["first"]


def sutskever_momentum_by_hand(e, g, memory, t):
    """What is subtracted as it is."""
    memory["first"] = e.momentum * memory["first"] - RATE * g
    return -memory["first"]


def adam_by_hand(e, g, memory, t):
    """Kingma & Ba 2015, Algorithm 1; fused, with its three settings as float32."""
    rounded = np.float32 if e.fused_adam else float
    b1, b2, eps = (float(rounded(x)) for x in (e.adam_b1, e.adam_b2, e.adam_eps))
    memory["first"] = b1 * memory["first"] + (1 - b1) * g
    memory["second"] = b2 * memory["second"] + (1 - b2) * g**2
    return (memory["first"] / (1 - b1**t)) / (
        np.sqrt(memory["second"] / (1 - b2**t)) + eps
    )


def rmsprop_by_hand(e, g, memory, t):
    memory["second"] = e.rmsprop_decay * memory["second"] + (1 - e.rmsprop_decay) * g**2
    return g / (np.sqrt(memory["second"]) + e.rmsprop_eps)


def adagrad_by_hand(e, g, memory, t):
    memory["second"] = memory["second"] + g**2
    return g / (np.sqrt(memory["second"]) + e.adagrad_eps)


RULES = {
    "sgd": sgd_by_hand,
    "momentum": momentum_by_hand,
    "nesterov": nesterov_by_hand,
    "ema_momentum": ema_momentum_by_hand,
    "sutskever_momentum": sutskever_momentum_by_hand,
    "adam": adam_by_hand,
    "adamw": adam_by_hand,
    "rmsprop": rmsprop_by_hand,
    "adagrad": adagrad_by_hand,
}
KEPT = {name: facts.moments for name, facts in catalogue.OPTIMIZERS.items()}


def torchs(experiment):
    """Flat params after each step of the twin, which is built of torch's own classes;
    torch clips as it does."""
    params = {
        name: torch.nn.Parameter(torch.from_numpy(array.copy()))
        for name, array in START.items()
    }
    optimizer = torch_ref.optimizers.OPTIMIZERS[experiment.optimizer](
        experiment, params.values()
    )
    for grads in GRADIENTS:
        for name, param in params.items():
            param.grad = torch.from_numpy(grads[name].copy())
        if experiment.clip_norm:
            torch.nn.utils.clip_grad_norm_(params.values(), experiment.clip_norm)
        optimizer.step()
        yield {name: param.detach().numpy().copy() for name, param in params.items()}


def assert_close(ours, theirs, eps):
    for here, there in zip(ours, theirs, strict=True):
        for name in SHAPES:
            np.testing.assert_allclose(
                here[name], there[name], rtol=0, atol=tolerance(eps), err_msg=name
            )


@every_optimizer
class TestEveryOptimizer:
    @every_option
    def test_is_its_formula(self, name, option):
        """The moments to as many roundings of the largest entry as there are steps,
        four in each."""
        experiment = experiment_of(name, option)
        path, state = train(experiment, jnp.float64)
        expected, memories = by_hand(experiment)
        assert_close(path, expected, DOUBLE)
        moments = optimizers.OPTIMIZERS[name](experiment).moments(state)
        for kind in KEPT[name]:
            ours = flatten(getattr(moments, kind))
            atol = (
                4
                * STEPS
                * DOUBLE
                * max(np.abs(memory[kind]).max() for memory in memories.values())
            )
            for tensor, memory in memories.items():
                np.testing.assert_allclose(
                    ours[tensor],
                    memory[kind],
                    rtol=0,
                    atol=atol,
                    err_msg=f"{kind} {tensor}",
                )

    def test_float32_stays_float32(self, name):
        experiment = experiment_of(name, "clipped")
        path, state = train(experiment, jnp.float32)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {
            "float32",
            "int32",
        }
        assert all(array.dtype == np.float32 for array in path[-1].values())
        assert_close(path, by_hand(experiment)[0], SINGLE)

    def test_moments_are_read_and_replaced(self, name):
        experiment = experiment_of(name, "clipped")
        optimizer = optimizers.OPTIMIZERS[name](experiment)
        _, state = train(experiment, jnp.float32)
        moments = optimizer.moments(state)
        assert (
            tuple(kind for kind, tree in moments._asdict().items() if tree)
            == KEPT[name]
        )
        chex.assert_trees_all_equal(optimizer.with_moments(moments, STEPS), state)

    @every_option
    def test_state_is_the_rules_alone(self, name, option):
        params = cast(START, jnp.float32)
        states = [
            optimizers.OPTIMIZERS[name](experiment_of(name, o)).transform.init(params)
            for o in (option, "plain")
        ]
        chex.assert_trees_all_equal(*states, strict=True)


class TestTwin:
    @pytest.mark.parametrize(
        ("name", "option"),
        [
            (name, option)
            for name in optimizers.OPTIMIZERS
            for option in OPTIONS
            if (name, option) != ("adagrad", "masked")
        ],
    )
    def test_is_torchs(self, name, option):
        """torch_ref refuses AdaGrad with a mask."""
        experiment = experiment_of(name, option)
        path, _ = train(experiment, jnp.float64)
        assert_close(path, torchs(experiment), DOUBLE)


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.parameters(*optimizers.OPTIMIZERS)
    def test_first_step_is_its_formula(self, name):
        experiment = experiment_of(name, "clipped")
        optimizer = optimizers.OPTIMIZERS[name](experiment)

        @self.variant
        def update(grads, state, params):
            rate = np.float64(RATE)
            return train_step.update(optimizer, params, state, grads, rate)[0]

        with jax.enable_x64(True):
            params = cast(START, jnp.float64)
            grads = cast(GRADIENTS[0], jnp.float64)
            moved = update(grads, optimizer.transform.init(params), params)
        chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
        moved = {tensor: np.asarray(array) for tensor, array in flatten(moved).items()}
        assert_close([moved], by_hand(experiment)[0][:1], DOUBLE)


class TestRegularized:
    def test_a_direction_of_another_shape_or_dtype_is_a_fault(self):
        params = {"kernel": jnp.ones((2, 3))}
        for rule in (
            optax.stateless(lambda grads, _: jax.tree.map(jnp.sum, grads)),
            optax.stateless(lambda grads, _: optax.tree.cast(grads, jnp.float16)),
        ):
            transform = optimizers.regularized(PLAIN, rule)
            with pytest.raises(AssertionError, match="equal_shapes_and_dtypes"):
                transform.update(params, transform.init(params), params)

    @pytest.mark.parametrize(
        ("path", "decay_all", "expected"),
        [
            ({"hidden_0": {"kernel": 0}}, False, True),
            ({"hidden_0/kernel": 0}, False, True),
            ({"hidden_0": {"bias": 0}}, False, False),
            ({"hidden_0": {"bias": 0}}, True, True),
        ],
    )
    def test_is_decayed_reads_nested_and_flat_names(self, path, decay_all, expected):
        ((keys, _),) = jax.tree_util.tree_leaves_with_path(path)
        experiment = PLAIN.replace(decay_all=decay_all)
        assert optimizers.is_decayed(experiment, keys) is expected


class TestSgd:
    def test_direction_is_the_gradient(self):
        transform = optimizers.sgd(Experiment(optimizer="sgd")).transform
        gradient = {"w": jnp.array([1.0, -2.0])}
        direction, _ = transform.update(gradient, transform.init(gradient), gradient)
        chex.assert_trees_all_equal(direction, gradient)


class TestNesterov:
    def test_looks_ahead_of_the_heavy_ball(self):
        """At the first step v = g: the heavy ball goes along g, Nesterov's along (1 +
        mu) g."""
        gradient = {"w": jnp.ones(1)}
        experiment = Experiment(momentum=0.5)
        for factory, expected in (
            (optimizers.momentum, 1),
            (optimizers.nesterov, 1.5),
            (optimizers.ema_momentum, 0.5),
        ):
            transform = factory(experiment).transform
            direction, _ = transform.update(
                gradient, transform.init(gradient), gradient
            )
            np.testing.assert_array_equal(direction["w"], [expected])


class TestSutskeverMomentum:
    """Two gradients of 1 at rates 1 and 1/2, mu = 1/2."""

    def after_two_steps(self, factory):
        optimizer = factory(Experiment(momentum=0.5))
        params, gradient = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
        state = optimizer.transform.init(params)
        for rate in np.float32([1, 0.5]):
            params, state = train_step.update(optimizer, params, state, gradient, rate)
        return params["w"]

    def test_each_gradient_keeps_the_rate_of_its_step(self):
        """-1, then -1/2 of it and -1/2."""
        moved = self.after_two_steps(optimizers.sutskever_momentum)
        np.testing.assert_array_equal(moved, [-2])

    def test_torchs_momentum_scales_them_all_by_the_last_rate(self):
        """-1, then 1/2 of -(1/2 + 1)."""
        moved = self.after_two_steps(optimizers.momentum)
        np.testing.assert_array_equal(moved, [-1.75])


class TestAdam:
    def test_fused_is_algorithm_1_in_rounded_settings(self):
        experiment = PLAIN.replace(fused_adam=True)
        path, _ = train(experiment, jnp.float64)
        assert_close(path, by_hand(experiment)[0], DOUBLE)

    def test_fused_takes_its_betas_as_float32(self):
        """1 - float32(0.999) is below 0.001 by 1.3e-5 of itself, and the second moment
        with it."""
        gradient = {"w": jnp.ones(1)}

        def second(fused):
            optimizer = optimizers.adam(Experiment(fused_adam=fused))
            return optimizer.transform.update(
                gradient, optimizer.transform.init(gradient)
            )[1].nu["w"]

        np.testing.assert_array_max_ulp(
            second(False), np.float32([1 - 0.999]), maxulp=1
        )
        np.testing.assert_array_max_ulp(
            second(True), np.float32([1 - np.float64(np.float32(0.999))]), maxulp=1
        )

    def test_ignores_decoupled_decay(self):
        """--weight_decay is adamw's; the two differ by it alone."""
        params, experiment = cast(START, jnp.float32), PLAIN.replace(weight_decay=0.5)
        directions = []
        for factory in (optimizers.adam, optimizers.adamw):
            transform = factory(experiment).transform
            directions.append(
                transform.update(
                    cast(GRADIENTS[0], jnp.float32), transform.init(params), params
                )[0]
            )
        expected = jax.tree.map(lambda d, w: d + 0.5 * w, directions[0], params)
        chex.assert_trees_all_equal(directions[1], expected)


class TestAdagrad:
    def test_an_untouched_weight_does_not_move(self):
        """0 / (sqrt(0) + eps) from an accumulator of 0."""
        transform, zero = (
            optimizers.adagrad(Experiment()).transform,
            {"w": jnp.zeros(2)},
        )
        direction, state = transform.update(zero, transform.init(zero), zero)
        np.testing.assert_array_equal(direction["w"], [0, 0])
        np.testing.assert_array_equal(state.sum_of_squares["w"], [0, 0])


finite = st.floats(-1e3, 1e3, allow_subnormal=False)  # XLA takes subnormals for 0
TREES = st.fixed_dictionaries(
    {
        "a": arrays(np.float64, (2, 3), elements=finite),
        "b": arrays(np.float64, 4, elements=finite),
    }
)
NORMS = st.floats(1e-3, 1e4)
jitted_clip = jax.jit(optimizers.clip)


@pytest.fixture(scope="module")
def deepspeed_clip():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    def clip(grads, norm, max_norm):
        tensors = {name: torch.from_numpy(g.copy()) for name, g in grads.items()}
        zero = types.SimpleNamespace(clip_grad=max_norm, loss_scale=1.0, device="cpu")
        DeepSpeedZeroOptimizer.unscale_and_clip_grads(
            zero, tensors.values(), torch.tensor(norm, dtype=torch.float64)
        )
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    return clip


class TestClip:
    @pytest.fixture(autouse=True)
    def float64(self):
        with jax.enable_x64(True):
            yield

    @given(grads=TREES, max_norm=NORMS)
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_is_deepspeeds(self, deepspeed_clip, grads, max_norm):
        """To 16 roundings: the sums of ten squares may round in another order."""
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        ours, theirs = (
            jitted_clip(grads, np.float64(max_norm)),
            deepspeed_clip(grads, norm, max_norm),
        )
        for name in grads:
            np.testing.assert_allclose(
                ours[name],
                theirs[name],
                rtol=16 * DOUBLE,
                atol=np.finfo(np.float64).tiny,
            )

    @given(grads=TREES, max_norm=NORMS)
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_ends_at_most_at_the_norm_and_leaves_what_is_below(self, grads, max_norm):
        """The eps of 1e-6 is worth 2e-10 of the largest norm here, 3e3, far more than
        rounding."""
        ours = jitted_clip(grads, np.float64(max_norm))
        norm, after = (
            np.sqrt(sum((np.asarray(g) ** 2).sum() for g in tree.values()))
            for tree in (grads, ours)
        )
        assert after <= max_norm
        if norm + 2e-6 < max_norm:
            chex.assert_trees_all_equal(ours, grads)
        if norm > max_norm:
            np.testing.assert_allclose(
                after, max_norm * norm / (norm + 1e-6), rtol=16 * DOUBLE
            )

    def test_norm_of_half_precision_is_taken_in_float32(self):
        """256 squares of 256 are beyond float16; clipped to 1 each is 1 / 16, exact but
        for the eps, in float16."""
        clipped = optimizers.clip({"w": jnp.full(256, 256, jnp.float16)}, 1.0)
        assert clipped["w"].dtype == jnp.float16
        np.testing.assert_array_equal(clipped["w"], np.full(256, 1 / 16, np.float16))


class TestOptimizers:
    def test_names_are_the_flags_choices(self):
        field = Experiment.__dataclass_fields__["optimizer"]
        assert tuple(optimizers.OPTIMIZERS) == field.metadata["choices"]

"""Differences between a recording and one's own optimizer, and the silence without."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from parity.measured.compare import differences
from parity.measured.fit import measure
from tests.parity.measured import programs
from tests.parity.measured.programs import record, replayed

optim = torch.optim

CLEAN = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "sgd decay": lambda p: optim.SGD(p, 0.1, weight_decay=0.01),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, 0.01),
    "adam decay": lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1, eps=1e-6),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, weight_decay=0.01),
    "rmsprop momentum": lambda p: optim.RMSprop(p, 0.01, momentum=0.9),
    "adagrad": lambda p: optim.Adagrad(p, 0.01),
    "adamax": lambda p: optim.Adamax(p, 0.01),
    "nadam": lambda p: optim.NAdam(p, 0.01),
    "radam": lambda p: optim.RAdam(p, 0.01),
    "lion": lambda p: programs.Lion(p, 1e-3, weight_decay=1.0),
}


def compared(make, own=None, hook=programs.nothing):
    recording = record(make, hook)
    return differences(measure(recording), measure(replayed(recording, own or make)))


def the_only(found):
    """The one difference, told of all tensors."""
    assert [one.kind for one in found] == [found[0].kind], found
    assert found[0].sentence.endswith("(all tensors)"), found
    return found[0]


class TestClean:
    @pytest.mark.parametrize("name", CLEAN)
    def test_nothing_is_said(self, name):
        assert compared(CLEAN[name]) == []

    def test_no_moments_beside_moments(self):
        recording = record(CLEAN["adamw"])
        bare = measure(programs.without_moments(recording))
        assert differences(bare, measure(replayed(recording, CLEAN["adamw"]))) == []


def in_optax(transformation, recording, moments):
    """Runs optax on the recorded parameters and gradients, in float32."""
    state = transformation.init(as_jax(recording[0].params))
    steps = []
    for step in recording:
        before = moments(state)
        params = as_jax(step.params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transformation.update(as_jax(step.grads), state, params)
            updated = jax.tree.map(np.asarray, optax.apply_updates(params, updates))
        after = moments(state)
        made = dict(updated=updated, moments=before, updated_moments=after)
        steps.append(step._replace(**made))
    return steps


def as_jax(arrays):
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def named(**kinds):
    return {
        f"{kind}/{name}": np.asarray(array)
        for kind, arrays in kinds.items()
        for name, array in arrays.items()
    }


OPTAX = {
    "sgd": (optax.sgd(0.1), lambda state: {}),
    "momentum": (
        optax.sgd(0.1, momentum=0.9),
        lambda state: named(first=state[0].trace),
    ),
    "nesterov": (
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        lambda state: named(first=state[0].trace),
    ),
    "adam": (
        optax.adam(0.01),
        lambda state: named(first=state[0].mu, second=state[0].nu),
    ),
    "adamw": (
        optax.adamw(0.01, weight_decay=0.1, eps=1e-6),
        lambda state: named(first=state[0].mu, second=state[0].nu),
    ),
    "adagrad": (
        optax.adagrad(0.01, initial_accumulator_value=0.0, eps=0.0),
        lambda state: named(second=state[0].sum_of_squares),
    ),
    "lion": (
        optax.lion(1e-3, weight_decay=1.0),
        lambda state: named(first=state[0].mu),
    ),
}


class TestOptax:
    @pytest.mark.parametrize("name", OPTAX)
    def test_is_torchs(self, name):
        recording = record(CLEAN[name])
        theirs = in_optax(OPTAX[name][0], recording, OPTAX[name][1])
        assert differences(measure(recording), measure(theirs)) == []

    def test_eps_inside_the_root(self):
        """MISMATCHES O1."""
        recording = record(lambda p: optim.RMSprop(p, 0.01, alpha=0.9, eps=1e-3))
        rmsprop = optax.rmsprop(0.01, decay=0.9, eps=1e-4)
        theirs = in_optax(rmsprop, recording, lambda state: named(second=state[0].nu))
        found = the_only(differences(measure(recording), measure(theirs)))
        assert found.kind == "eps place"
        assert found.sentence.startswith(
            "eps 0.001 stands outside the root, yours (0.0001) inside the root"
        )


HOOKS = {
    "clipping": (programs.clipped, "clipped to a global norm of 1"),
    "gradient factor": (programs.unscaled_twice, "1.526e-05 (1/65536, 2^-16) at every"),
    "halved": (programs.halved_at_3, "gradient at step 3 was 0.5 (1/2, 2^-1) of yours"),
    "zero gradients": (programs.zero_at_4, "step 4"),
}
PLANTED = ("momentum", "adam", "adamw", "rmsprop momentum", "adagrad", "nesterov")


class TestGradients:
    @pytest.mark.parametrize("name", PLANTED)
    @pytest.mark.parametrize("hook", HOOKS)
    def test_their_fate_is_named(self, name, hook):
        found = the_only(compared(CLEAN[name], hook=HOOKS[hook][0]))
        assert HOOKS[hook][1] in found.sentence
        assert found.kind == ("gradient factor" if hook == "halved" else hook)

    @pytest.mark.parametrize("name", ["sgd", *PLANTED])
    def test_those_of_the_step_before(self, name):
        found = the_only(compared(CLEAN[name], hook=programs.Late()))
        assert found.kind == "stale gradient"

    def test_sgd_leaves_open_what_it_is(self):
        found = the_only(compared(CLEAN["sgd"], hook=programs.unscaled_twice))
        assert "which SGD does not tell apart" in found.sentence
        assert found.recorded == pytest.approx(2.0**-16, rel=1e-3)

    def test_a_factor_does_not_change_the_decay_of_sgd(self):
        found = the_only(compared(CLEAN["sgd decay"], hook=programs.unscaled_twice))
        assert found.kind == "rate or gradient factor"

    def test_clipping_under_sgd(self):
        found = the_only(compared(CLEAN["sgd"], hook=programs.clipped))
        assert found.kind == "clipping"
        assert found.recorded == pytest.approx(1, rel=1e-3)


SETTINGS = {
    "second moment decays by 0.99, under your optimizer by 0.999": (
        lambda p: optim.Adam(p, 0.01, betas=(0.9, 0.99)),
        lambda p: optim.Adam(p, 0.01),
    ),
    "first moment decays by 0.8, under your optimizer by 0.9": (
        lambda p: optim.Adam(p, 0.01, betas=(0.8, 0.999)),
        lambda p: optim.Adam(p, 0.01),
    ),
    "eps is 0.001, yours ": (
        lambda p: optim.Adam(p, 0.01, eps=1e-3),
        lambda p: optim.Adam(p, 0.01),
    ),
    "rate is 0.01 where yours is 0.02 at every step": (
        lambda p: optim.Adam(p, 0.01),
        lambda p: optim.Adam(p, 0.02),
    ),
    "decay 0.1 is coupled, yours decoupled": (
        lambda p: optim.Adam(p, 0.01, weight_decay=0.1),
        lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
    "decoupled decay is 0.1, your optimizer's below ": (
        lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
        lambda p: optim.AdamW(p, 0.01, weight_decay=0),
    ),
    "the update is that of nesterov, yours that of momentum": (
        CLEAN["nesterov"],
        CLEAN["momentum"],
    ),
    "the momentum is: dampened heavy ball; yours: heavy ball": (
        lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5),
        CLEAN["momentum"],
    ),
    "dampening is 0.5, yours 0.3": (
        lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5),
        lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.3),
    ),
}


def without_decay_of_vectors(params):
    kernels = [param for param in params if param.ndim > 1]
    vectors = [param for param in params if param.ndim < 2]
    groups = [{"params": kernels}, {"params": vectors, "weight_decay": 0.0}]
    return optim.AdamW(groups, 0.01, weight_decay=0.1)


class TestSettings:
    @pytest.mark.parametrize("sentence", SETTINGS)
    def test_are_told_with_both_figures(self, sentence):
        found = the_only(compared(*SETTINGS[sentence]))
        assert found.sentence.startswith(sentence)

    def test_a_decay_mask_names_its_tensors(self):
        (found,) = compared(
            lambda p: optim.AdamW(p, 0.01, weight_decay=0.1), without_decay_of_vectors
        )
        assert found.tensors == ("0.bias", "2.weight", "2.bias", "3.bias")
        assert "4 tensors: 0.bias, 2.weight, 2.bias and 1 more" in found.sentence

    def test_a_rate_of_one_step(self):
        def make(params):
            return optim.Adam([{"params": params, "initial": 0.01}], 0.01)

        found = the_only(compared(make, hook=programs.slower_at_4))
        assert found.sentence.startswith("rate is 0.005 where yours is 0.01 at step 4")

    def test_a_count_that_starts_at_1(self):
        found = the_only(compared(CLEAN["adam"], hook=programs.counted_from_1))
        assert found.kind == "bias-correction count"
        assert "update 1 was corrected as update 2" in found.sentence

    def test_a_count_under_a_schedule(self):
        """The rates alone would not tell the count; those of the other side do."""

        def make(params):
            return optim.Adam(params, 0.01)

        def warm_up(number, params, optimizer):
            programs.counted_from_1(number, params, optimizer)
            optimizer.param_groups[0]["lr"] = 0.01 * (number + 1)

        recording = record(make, warm_up)
        own = replayed(recording, lambda p: Scheduled(p))
        found = the_only(differences(measure(recording), measure(own)))
        assert found.kind == "bias-correction count"

    def test_a_tensor_that_never_moves(self):
        def frozen(number, params, optimizer):
            if number == 0:
                optimizer.param_groups[0]["params"] = params[1:]

        (found,) = compared(CLEAN["sgd"], hook=frozen)
        assert found.kind == "still"
        assert found.tensors == ("0.weight",)


class Scheduled(optim.Adam):
    """Rates 0.01, 0.02, 0.03, ..."""

    def __init__(self, params):
        super().__init__(params, 0.01)
        self.number = 0

    def step(self, closure=None):
        self.number += 1
        self.param_groups[0]["lr"] = 0.01 * self.number
        return super().step(closure)


class TestFloat32Betas:
    def test_are_named(self):
        """MISMATCHES D6, on NumPy's float32."""
        recording = record(CLEAN["adam"])
        rounded = with_float32_betas(recording)
        found = the_only(differences(measure(rounded), measure(recording)))
        assert found.kind == "float32 betas"
        assert "1 - b2 is 0.00099998708, under your optimizer 0.001" in found.sentence


def with_float32_betas(recording):
    """Adam as DeepSpeed's FusedAdam computes it."""
    one, b1, b2 = np.float32([1, 0.9, 0.999])
    moments = {key: np.zeros_like(a) for key, a in recording[0].updated_moments.items()}
    steps = []
    for number, step in enumerate(recording, 1):
        updated, after = {}, {}
        for name, g in step.grads.items():
            m = b1 * moments[f"first/{name}"] + (one - b1) * g
            v = b2 * moments[f"second/{name}"] + (one - b2) * g * g
            first, second = (np.float32(1 - float(b) ** number) for b in (b1, b2))
            root = np.sqrt(v / second) + np.float32(1e-8)
            updated[name] = step.params[name] - np.float32(0.01) * (m / first / root)
            after |= {f"first/{name}": m, f"second/{name}": v}
        made = dict(updated=updated, moments=moments, updated_moments=after)
        steps.append(step._replace(**made))
        moments = after
    return steps

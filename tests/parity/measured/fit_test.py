"""Settings recovered from the tensors of torch's optimizers and of the project's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment import catalogue
from jaxnn.experiment.flags.config import Experiment
from parity.measured.fit import measure
from tests.parity.measured import programs
from tests.parity.measured.programs import record
from torch_ref import optimizers

optim = torch.optim


def close(number, value):
    """The interval holds the value, and is within 1e-3 of it."""
    assert number.holds(value), (number, value)
    assert abs(number.value - value) <= 1e-3 * abs(value), (number, value)


def check(fits, family, rate=None, decayed=True, **values):
    for fit in fits.values():
        assert fit.family == family, (fit.name, fit.family, fit.quality)
        assert fit.quality.is_good
        sharp = [one for one in fit.rates if one.error < 1e-3 * abs(one.value)]
        for one in sharp if rate else []:
            close(one, rate)
        for name, value in values.items():
            number = getattr(fit, name)
            if number.is_bounded and number.error < 1e-3 * value:
                close(number, value)
            else:
                assert number.holds(value), (fit.name, name, number)
    # What small tensors hide, the largest shows.
    largest = fits["0.weight"]
    for name, value in values.items():
        close(getattr(largest, name), value)
    assert rate is None or any(one.is_seen for one in largest.rates)


TORCH = {
    "sgd": (lambda p: optim.SGD(p, 0.1), "sgd", dict(rate=0.1)),
    "sgd decay": (
        lambda p: optim.SGD(p, 0.1, weight_decay=0.1),
        "sgd",
        dict(rate=0.1, decay=0.1),
    ),
    "momentum": (
        lambda p: optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.01),
        "momentum",
        dict(rate=0.1, b1=0.8, decay=0.01),
    ),
    "dampening": (
        lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.3),
        "momentum",
        dict(rate=0.1, b1=0.9, dampening=0.3),
    ),
    "nesterov": (
        lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        "nesterov",
        dict(rate=0.1, b1=0.9, decay=0.01),
    ),
    "adam": (
        lambda p: optim.Adam(p, 0.01, eps=1e-3, betas=(0.8, 0.99)),
        "adam",
        dict(rate=0.01, b1=0.8, b2=0.99, eps=1e-3),
    ),
    "adam decay": (
        lambda p: optim.Adam(p, 0.01, eps=1e-3, weight_decay=0.1),
        "adam",
        dict(rate=0.01, b1=0.9, b2=0.999, eps=1e-3, decay=0.1),
    ),
    "adamw": (
        lambda p: optim.AdamW(p, 0.01, eps=1e-3, weight_decay=0.1),
        "adamw",
        dict(rate=0.01, b1=0.9, b2=0.999, eps=1e-3, decay=0.1),
    ),
    "rmsprop": (
        lambda p: optim.RMSprop(p, 0.01, alpha=0.95, eps=1e-3),
        "rmsprop",
        dict(rate=0.01, b2=0.95, eps=1e-3),
    ),
    "rmsprop decay": (
        lambda p: optim.RMSprop(p, 0.01, eps=1e-3, weight_decay=0.01),
        "rmsprop",
        dict(rate=0.01, b2=0.99, eps=1e-3, decay=0.01),
    ),
    "rmsprop with momentum": (
        lambda p: optim.RMSprop(p, 0.01, momentum=0.9, eps=1e-3),
        "rmsprop with momentum",
        dict(rate=0.01, b1=0.9, b2=0.99, eps=1e-3),
    ),
    "adagrad": (
        lambda p: optim.Adagrad(p, 0.01, eps=1e-3),
        "adagrad",
        dict(rate=0.01, eps=1e-3),
    ),
    "adamax": (
        lambda p: optim.Adamax(p, 0.01, eps=1e-3),
        "adamax",
        dict(rate=0.01, b1=0.9, b2=0.999, eps=1e-3),
    ),
    "nadam": (
        lambda p: optim.NAdam(p, 0.01, eps=1e-3),
        "nadam",
        dict(rate=0.01, b1=0.9, b2=0.999, eps=1e-3),
    ),
    "radam": (
        lambda p: optim.RAdam(p, 0.01, eps=1e-3),
        "radam",
        dict(rate=0.01, b1=0.9, b2=0.999, eps=1e-3),
    ),
    "lion": (
        lambda p: programs.Lion(p, 1e-3, weight_decay=1.0),
        "lion",
        dict(rate=1e-3, b2=0.99, decay=1.0),
    ),
}


class TestTorch:
    @pytest.mark.parametrize("name", TORCH)
    def test_settings_are_recovered(self, name):
        make, family, values = TORCH[name]
        check(measure(record(make)), family, **values)

    def test_decay_is_coupled_or_decoupled(self):
        coupled = measure(record(TORCH["adam decay"][0]))["0.weight"]
        decoupled = measure(record(TORCH["adamw"][0]))["0.weight"]
        assert coupled.decay_kind == "coupled"
        assert decoupled.decay_kind == "decoupled"

    def test_lions_mix_lies_within_its_interval(self):
        fit = measure(record(TORCH["lion"][0]))["0.weight"]
        assert fit.b1.holds(0.9)
        assert fit.b1.error < 0.05


def invisible(params):
    """eps 1e-12 beside gradients of 1e-2, and no decay."""
    return optim.Adam(params, 0.01, eps=1e-12)


class TestWhatCannotBeSeen:
    def test_small_eps_is_only_bounded(self):
        for fit in measure(record(invisible)).values():
            assert not fit.eps.is_seen
            assert fit.eps_place == ""
            assert fit.eps.text().startswith("below ")

    def test_no_decay_is_a_bound(self):
        for fit in measure(record(invisible)).values():
            assert fit.decay_kind == ""
            assert fit.decay.holds(0)

    def test_sgd_does_not_tell_rate_from_factor(self):
        fit = measure(record(TORCH["sgd"][0]))["0.weight"]
        assert not any(factor.is_bounded for factor in fit.factors)

    def test_a_late_recording_shows_no_bias_correction(self):
        recording = record(invisible, steps=6)
        late = [step._replace(count=step.count + 100_000) for step in recording[4:]]
        fit = measure(late)["0.weight"]
        assert not fit.correction.is_measured

    def test_one_step_is_too_few(self):
        with pytest.raises(ValueError, match="2 steps"):
            measure(record(invisible, steps=1))


def project(name):
    flags = dict(optimizer=name, learning_rate=0.05, fused_adam=False)
    flags |= {"weight_decay": 0.1} if name == "adamw" else {"l2": 0.01}
    experiment = Experiment(**flags)
    return lambda params: optimizers.OPTIMIZERS[name](experiment, params)


class TestProject:
    @pytest.mark.parametrize("name", catalogue.OPTIMIZERS)
    def test_every_optimizer_is_recognised(self, name):
        fits = measure(record(project(name)))
        family = "momentum" if name.endswith("momentum") else name
        decay = 0.1 if name == "adamw" else 0.01
        check(fits, family, rate=0.05, decay=decay)

    def test_the_momentums_are_told_apart(self):
        forms = {
            name: measure(record(project(name)))["0.weight"].momentum_form
            for name in ("momentum", "ema_momentum", "sutskever_momentum")
        }
        assert forms == {
            "momentum": "heavy ball",
            "ema_momentum": "average",
            "sutskever_momentum": "rate inside",
        }

    def test_a_falling_rate_is_told_from_a_heavy_ball(self):
        def make(params):
            return optimizers.SutskeverMomentum(params, 0.1, momentum=0.9)

        def fall(number, params, optimizer):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.8**number

        fit = measure(record(make, fall))["0.weight"]
        assert fit.momentum_form == "rate inside"
        close(fit.b1, 0.9)
        for number, rate in enumerate(fit.rates):
            close(rate, 0.1 * 0.8**number)


def adam(params):
    return optim.Adam(params, 0.01, weight_decay=0.01)


def uncorrected(recording):
    """Adam's steps at rate 0.01 without bias correction."""
    steps = []
    for step in recording:
        updated = {}
        for name, w in step.params.items():
            m, v = (step.updated_moments[f"{k}/{name}"] for k in ("first", "second"))
            root = np.sqrt(v) + np.float32(1e-8)
            updated[name] = w - np.float32(0.01) * (m / root)
        steps.append(step._replace(updated=updated))
    return steps


class TestGradients:
    def test_clipping(self):
        for fit in measure(record(adam, programs.clipped)).values():
            close(fit.clip_norm, 1.0)
            assert min(factor.value for factor in fit.factors) < 0.7

    def test_a_factor_of_every_step(self):
        fits = measure(record(adam, programs.unscaled_twice))
        for fit in fits.values():
            assert all(factor.holds(2.0**-16) for factor in fit.factors)
            assert not fit.clip_norm.is_bounded
        for factor in fits["0.weight"].factors:
            close(factor, 2.0**-16)

    def test_a_halved_step(self):
        for fit in measure(record(adam, programs.halved_at_3)).values():
            close(fit.factors[3], 0.5)
            close(fit.factors[4], 1.0)

    def test_zero_gradients(self):
        for fit in measure(record(adam, programs.zero_at_4)).values():
            assert fit.zero_steps == (4,)

    def test_the_gradients_of_the_step_before(self):
        for fit in measure(record(adam, programs.Late())).values():
            assert fit.is_stale
            assert fit.family == "adam"

    def test_a_count_that_starts_at_1(self):
        recording = record(lambda p: optim.Adam(p, 0.01), programs.counted_from_1)
        for fit in measure(recording).values():
            assert fit.correction.offset == 1
            assert fit.correction.is_measured

    def test_a_count_that_was_restarted(self):
        """The record says 10^6 updates, the optimizer began anew."""
        recording = record(lambda p: optim.Adam(p, 0.01))
        far = [step._replace(count=step.count + 10**6) for step in recording]
        for fit in measure(far).values():
            assert fit.correction.offset == -(10**6)

    def test_moments_that_are_not_corrected(self):
        for fit in measure(uncorrected(record(optim.Adam))).values():
            assert fit.family == "adam"
            assert fit.correction.offset is None
            assert fit.correction.is_measured

    def test_frozen_tensors_and_entries(self):
        def frozen(number, params, optimizer):
            if number == 0:
                optimizer.param_groups[0]["params"] = params[1:]

        fits = measure(record(lambda p: optim.SGD(p, 0.1), frozen))
        assert fits["0.weight"].family == "never moves"
        assert fits["0.bias"].family == "sgd"

    def test_entries_that_never_move(self):
        recording = record(adam)
        for step in recording:
            step.updated["0.weight"][0] = recording[0].params["0.weight"][0]
            step.params["0.weight"][0] = recording[0].params["0.weight"][0]
        # Moments with L2 follow the weights that moved.
        fit = measure([s._replace(params=dict(s.params)) for s in recording])
        assert fit["0.weight"].still == 10


class TestRandomSettings:
    @given(
        rate=st.floats(1e-3, 0.1),
        b1=st.floats(0.3, 0.97),
        b2=st.floats(0.8, 0.9995),
        eps=st.floats(1e-4, 1e-2),
        decay=st.floats(0.01, 0.5),
        decoupled=st.booleans(),
    )
    @settings(deadline=None, max_examples=5, derandomize=True)
    def test_adam(self, rate, b1, b2, eps, decay, decoupled):
        kind = optim.AdamW if decoupled else optim.Adam

        def make(params):
            return kind(params, rate, betas=(b1, b2), eps=eps, weight_decay=decay)

        family = "adamw" if decoupled else "adam"
        fits = measure(record(make, steps=6))
        check(fits, family, rate=rate, b1=b1, b2=b2)
        assert all(fit.eps.holds(eps) for fit in fits.values())
        assert all(fit.decay.holds(decay) for fit in fits.values())

    @given(
        rate=st.floats(1e-3, 0.3),
        b1=st.floats(0.2, 0.98),
        decay=st.floats(0.001, 0.5),
        nesterov=st.booleans(),
    )
    @settings(deadline=None, max_examples=5, derandomize=True)
    def test_momentum(self, rate, b1, decay, nesterov):
        def make(params):
            return optim.SGD(
                params, rate, momentum=b1, weight_decay=decay, nesterov=nesterov
            )

        family = "nesterov" if nesterov else "momentum"
        fits = measure(record(make, steps=6))
        check(fits, family, rate=rate, b1=b1, decay=decay)


class TestWithoutMoments:
    @pytest.mark.parametrize(
        "name", ["momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad"]
    )
    def test_settings_are_recovered(self, name):
        makes = {
            "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.8),
            "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        }
        make, family, values = TORCH[name]
        recording = programs.without_moments(record(makes.get(name, make)))
        wanted = {key: values[key] for key in ("b1", "b2") if key in values}
        fits = measure(recording)
        check(fits, family, rate=values["rate"], **wanted)
        assert all(fit.is_rebuilt for fit in fits.values())

    def test_nothing_is_rebuilt_in_the_middle(self):
        recording = programs.without_moments(record(TORCH["adam"][0]))[2:]
        assert not measure(recording)["0.weight"].is_recognised


def test_numbers_are_plain():
    fit = measure(record(TORCH["adam"][0]))["0.weight"]
    assert type(fit.b1.value) is float
    assert isinstance(fit.rates[0].value, float)
    assert np.isfinite(fit.quality.rms)

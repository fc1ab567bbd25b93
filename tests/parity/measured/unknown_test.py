"""What no formula holds stays unnamed: no sentence tells a cause that is not there."""

import numpy as np
import pytest
import torch

from parity.measured.compare import differences
from parity.measured.fit import measure
from tests.parity.measured.programs import record, replayed

optim = torch.optim


def sgd(params):
    return optim.SGD(params, 0.1)


BASES = {
    "sgd": sgd,
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, 0.01),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01),
}


def noisy(share):
    def plant(change, w, g, rng):
        return change * (1 + share * rng.standard_normal(change.shape))

    return plant


def flipped(change, w, g, rng):
    change.flat[0] *= -1
    return change


def by_row(change, w, g, rng):
    """A rate of its own for every row; of a vector, for every entry."""
    rates = np.linspace(0.5, 1.5, len(change))
    return change * rates.reshape((-1,) + (1,) * (change.ndim - 1))


def clipped_by_entry(change, w, g, rng):
    limit = np.median(np.abs(change))
    return np.clip(change, -limit, limit)


def cubic(change, w, g, rng):
    return change + 0.1 * change**3 / np.max(np.abs(change)) ** 2


def pulled_to_one(change, w, g, rng):
    return change + 1e-3 * np.sin(7 * w)


def rounded_to_bfloat16(change, w, g, rng):
    bits = np.float32(change).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def shuffled(change, w, g, rng):
    return rng.permutation(change.reshape(-1)).reshape(change.shape)


def drifting(change, w, g, rng):
    return change + 1e-4 * rng.standard_normal(change.shape)


PLANTS = {
    "noise of 1e-3": noisy(1e-3),
    "noise of 1e-2": noisy(1e-2),
    "noise of 1": noisy(1.0),
    "one sign flipped": flipped,
    "a rate by row": by_row,
    "clipped by entry": clipped_by_entry,
    "a cubic term": cubic,
    "pulled by a sine": pulled_to_one,
    "rounded to bfloat16": rounded_to_bfloat16,
    "shuffled": shuffled,
    "random drift": drifting,
}


def planted(recording, plant):
    """The recording with other updates."""
    rng = np.random.default_rng(0)
    steps = []
    for step in recording:
        updated = {}
        for name, w in step.params.items():
            w = w.astype(np.float64)
            change = step.updated[name] - w
            changed = plant(change, w, step.grads[name], rng)
            updated[name] = np.float32(w + changed)
        steps.append(step._replace(updated=updated))
    return steps


def sentences(recording, make, names=None):
    """Sentences of some tensors or all, but for those that name no cause."""
    own = measure(replayed(recording, make))
    found = differences(measure(recording), {name: own[name] for name in names or own})
    return [one.sentence for one in found if one.kind != "unrecognised"]


class TestUpdates:
    @pytest.mark.parametrize("plant", PLANTS)
    @pytest.mark.parametrize("base", [base for base in BASES if base != "sgd"])
    def test_no_wrong_cause(self, base, plant):
        recording = planted(record(BASES[base]), PLANTS[plant])
        assert sentences(recording, BASES[base]) == []

    @pytest.mark.parametrize("plant", PLANTS)
    def test_no_wrong_cause_under_sgd(self, plant):
        recording = planted(record(sgd, steps=4), PLANTS[plant])
        assert sentences(recording[1:], sgd) == []

    @pytest.mark.parametrize("plant", ["noise of 1e-3", "a rate by row"])
    def test_no_moments_are_made_up(self, plant):
        """From update 0 on, moments might explain what SGD does not."""
        recording = planted(record(sgd, steps=5), PLANTS[plant])
        assert sentences(recording, sgd) == []

    @pytest.mark.parametrize("base", [base for base in BASES if base != "sgd"])
    def test_large_noise_is_seen(self, base):
        fits = measure(planted(record(BASES[base]), noisy(0.1)))
        assert not fits["0.weight"].is_recognised
        assert fits["0.weight"].quality.rms > 10


def with_noise(recording, field, share):
    rng = np.random.default_rng(0)

    def moved(array):
        noise = share * rng.standard_normal(array.shape)
        return np.float32(array * (1 + noise))

    return [
        step._replace(**{field: {k: moved(a) for k, a in getattr(step, field).items()}})
        for step in recording
    ]


class TestOtherTensors:
    @pytest.mark.parametrize("share", [1e-4, 0.5])
    @pytest.mark.parametrize("field", ["grads", "updated_moments", "params"])
    @pytest.mark.parametrize("base", ["momentum", "adam", "rmsprop"])
    def test_noise_is_no_cause(self, base, field, share):
        recording = with_noise(record(BASES[base]), field, share)
        assert sentences(recording, BASES[base]) == []


class Factored(optim.Optimizer):
    """Adafactor's rank-one second moment, unclipped (Shazeer & Stern 2018)."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        for w in self.param_groups[0]["params"]:
            square = w.grad.reshape(len(w), -1).square() + 1e-12
            rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
            root = (rows * columns / rows.mean()).sqrt().reshape(w.shape)
            self.state[w]["exp_avg_sq"] = root.square()
            w.sub_(0.01 * w.grad / root)


OTHERS = {
    "adafactor": (Factored, lambda p: optim.RMSprop(p, 0.01)),
    "centered": (
        lambda p: optim.RMSprop(p, 0.01, centered=True),
        lambda p: optim.RMSprop(p, 0.01),
    ),
    "amsgrad": (
        lambda p: optim.Adam(p, 0.01, betas=(0.9, 0.5), amsgrad=True),
        lambda p: optim.Adam(p, 0.01, betas=(0.9, 0.5)),
    ),
    "adadelta": (lambda p: optim.Adadelta(p, 1.0), lambda p: optim.RMSprop(p, 0.01)),
}


class TestOtherOptimizers:
    @pytest.mark.parametrize("kind", [optim.Rprop, optim.Adadelta])
    def test_without_moments_neither(self, kind):
        recording = record(lambda p: kind(p, 0.01), steps=4)[1:]
        assert sentences(recording, sgd) == []

    @pytest.mark.parametrize("name", OTHERS)
    def test_are_not_given_a_name(self, name):
        make, own = OTHERS[name]
        recording = record(make)
        assert not measure(recording)["0.weight"].is_recognised
        # Of a vector, Adafactor's second moment is RMSprop's without a past.
        kernels = ["0.weight", "3.weight"]
        assert sentences(recording, own, kernels) == []

"""Clipping in every form is told by name, on both sides; its kin are not."""

import numpy as np
import pytest
import torch

from parity.measured.compare import differences
from parity.measured.fit import measure
from parity.measured.predict import is_reproduced
from tests.parity.measured import programs
from tests.parity.measured.programs import record, replayed

optim = torch.optim

BASES = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "adamw": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1),
}


def by_norm(bound):
    def hook(number, params, optimizer):
        torch.nn.utils.clip_grad_norm_(params, bound)

    return hook


def by_tensor(number, params, optimizer):
    for param in params:
        torch.nn.utils.clip_grad_norm_([param], 0.3)


def by_value(number, params, optimizer):
    torch.nn.utils.clip_grad_value_(params, 0.05)


def to_bound(number, params, optimizer):
    """max_norm / norm without the minimum with 1."""
    norm = norm_of(params)
    scale(params, 1.6 / (norm + 1e-6))


def norm_of(params):
    return torch.sqrt(sum((param.grad**2).sum() for param in params))


def scale(params, factor):
    for param in params:
        param.grad.mul_(factor)


class Clipped(optim.Adam):
    """Adam that clips by itself, as one's own may."""

    def __init__(self, params, hook, lr=0.01):
        super().__init__(params, lr)
        self.hook = hook

    def step(self, closure=None):
        self.hook(0, self.param_groups[0]["params"], self)
        return super().step(closure)


def of_base(base, hook):
    recording = record(BASES[base], hook)
    if base == "sgd":
        # From update 0 on, moments might explain what SGD does not: a long search.
        recording = recording[1:]
    own = measure(replayed(recording, BASES[base]))
    return differences(measure(recording), own)


class TestForms:
    @pytest.mark.parametrize("base", BASES)
    def test_by_value(self, base):
        (found,) = of_base(base, by_value)
        assert found.kind == "clip by value"
        assert found.recorded == pytest.approx(0.05, rel=1e-5)
        assert "all tensors" in found.sentence

    def test_by_each_tensors_norm(self):
        (found, *more) = of_base("adamw", by_tensor)
        assert {found.kind, *(one.kind for one in more)} == {"clip by tensor"}
        assert found.recorded == pytest.approx(0.3, rel=1e-4)

    def test_below_the_bound_too(self):
        (found,) = of_base("adamw", to_bound)
        assert found.kind == "clip normalizes"


def both(hook, own, factor=1.0):
    recording = record(lambda p: Clipped(p, hook), factor=factor)
    theirs = measure(replayed(recording, lambda p: Clipped(p, own)))
    return differences(measure(recording), theirs)


def without_eps(number, params, optimizer):
    scale(params, min(1.0, 1e-3 / float(norm_of(params))))


class TestBothClip:
    def test_alike_says_nothing(self):
        assert both(by_norm(0.5), by_norm(0.5)) == []

    def test_the_recorded_do_not(self):
        (found,) = both(programs.nothing, by_norm(0.5))
        assert found.kind == "clip missing"
        assert found.own == pytest.approx(0.5, rel=1e-4)

    def test_to_another_norm(self):
        (found,) = both(by_norm(0.4), by_norm(0.5))
        assert found.kind == "clip norm"
        assert "0.4" in found.sentence
        assert "0.5" in found.sentence

    def test_by_each_tensor(self):
        assert {one.kind for one in both(by_tensor, by_norm(0.5))} == {"clip by tensor"}

    def test_to_other_values(self):
        other = both(lambda *a: torch.nn.utils.clip_grad_value_(a[1], 0.045), by_value)
        assert [one.kind for one in other] == ["clip by value"]

    def test_an_eps_in_the_norm(self):
        """MISMATCHES D7, where norms are small enough to show it."""
        (found,) = both(by_norm(1e-3), without_eps, factor=1e-2)
        assert found.kind == "clip eps"


def soft(number, params, optimizer):
    for param in params:
        param.grad.copy_(0.1 * torch.tanh(param.grad / 0.1))


def by_quantile(number, params, optimizer):
    for param in params:
        bound = param.grad.abs().quantile(0.8)
        param.grad.clamp_(-bound, bound)


def lopsided(number, params, optimizer):
    for param in params:
        param.grad.clamp_(-0.05, 0.1)


def large_ones_dropped(number, params, optimizer):
    for param in params:
        param.grad.mul_(param.grad.abs() < 0.05)


def by_row(number, params, optimizer):
    for param in params:
        norms = param.grad.reshape(len(param), -1).norm(dim=1)
        factor = (0.05 / norms).clamp(max=1).reshape([-1] + [1] * (param.ndim - 1))
        param.grad.mul_(factor)


def by_sum_of_sizes(number, params, optimizer):
    scale(params, min(1.0, 2 / sum(param.grad.abs().sum() for param in params)))


def by_largest(number, params, optimizer):
    scale(params, min(1.0, 0.1 / max(param.grad.abs().max() for param in params)))


def by_weights(number, params, optimizer):
    """Adaptive clipping (Brock et al. 2021), by tensor."""
    for param in params:
        bound = 0.02 * param.detach().norm() + 1e-3
        param.grad.mul_(min(1.0, bound / param.grad.norm()))


def clipped_then_noisy(number, params, optimizer):
    torch.nn.utils.clip_grad_norm_(params, 0.5)
    noise = torch.Generator().manual_seed(number)
    for param in params:
        param.grad.add_(1e-2 * torch.randn(param.shape, generator=noise))


def to_few_bits(number, params, optimizer):
    for param in params:
        unit = param.grad.abs().max() / 7
        param.grad.div_(unit).round_().mul_(unit)


def largest_alone(number, params, optimizer):
    for param in params:
        bound = param.grad.abs().quantile(0.9)
        param.grad.mul_(param.grad.abs() >= bound)


def centred(number, params, optimizer):
    for param in params:
        if param.ndim > 1:
            param.grad.sub_(param.grad.mean(1, keepdim=True))


class Blended:
    """Half the gradient of the step before, or that of two steps before."""

    def __init__(self, now, one, two):
        self.shares, self.last = (now, one, two), []

    def __call__(self, number, params, optimizer):
        now = [param.grad.clone() for param in params]
        past = [now, *self.last][:3]
        past += [past[-1]] * (3 - len(past))
        for place, param in enumerate(params):
            parts = [s * held[place] for s, held in zip(self.shares, past)]
            param.grad.copy_(sum(parts))
        self.last = [now, *self.last][:2]


def sometimes_late(late):
    def hook(number, params, optimizer):
        now = [param.grad.clone() for param in params]
        late(number, params, optimizer)
        if number % 2:
            for param, grad in zip(params, now):
                param.grad.copy_(grad)

    return hook


NEIGHBOURS = {
    "a soft bound": lambda: soft,
    "a bound by quantile": lambda: by_quantile,
    "two bounds": lambda: lopsided,
    "large entries dropped": lambda: large_ones_dropped,
    "by row": lambda: by_row,
    "clipped, then noisy": lambda: clipped_then_noisy,
    "few bits": lambda: to_few_bits,
    "the largest alone": lambda: largest_alone,
    "centred": lambda: centred,
    "half of the step before": lambda: Blended(0.5, 0.5, 0.0),
    "of two steps before": lambda: Blended(0.0, 0.0, 1.0),
    "sometimes late": lambda: sometimes_late(programs.Late()),
}
OTHER_NORMS = {
    "by the sum of sizes": by_sum_of_sizes,
    "by the largest entry": by_largest,
    "by the weights": by_weights,
}


class TestNeighbours:
    @pytest.mark.parametrize("base", ["sgd", "adamw"])
    @pytest.mark.parametrize("name", NEIGHBOURS)
    def test_are_given_no_name(self, name, base):
        kernels = [
            (one.kind, one.tensors)
            for one in of_base(base, NEIGHBOURS[name]())
            # Centring leaves vectors alone, and moves of one entry are of any form.
            if one.kind != "unrecognised" and "0.weight" in one.tensors
        ]
        assert kernels == []

    @pytest.mark.parametrize("name", OTHER_NORMS)
    def test_factors_are_told_as_such(self, name):
        """They are measured; but it is no norm that they come from."""
        found = of_base("adamw", OTHER_NORMS[name])
        assert {one.kind for one in found} == {"gradient factor"}


class TestIsReproduced:
    def test_an_entry_that_was_not_looked_at(self):
        """Fits are made of 1024 entries; this tensor has 160."""
        recording = record(BASES["adamw"])
        fits = measure(recording)
        assert all(is_reproduced(fit, recording) for fit in fits.values())
        last = recording[-1]
        moved = {name: array.copy() for name, array in last.updated.items()}
        moved["0.weight"].flat[7] += np.float32(1e-3)
        broken = [*recording[:-1], last._replace(updated=moved)]
        assert not is_reproduced(fits["0.weight"], broken)
        assert is_reproduced(fits["3.weight"], broken)

    def test_a_gradient_that_the_decay_cancels(self):
        """What is left of the two is smaller than either was rounded by."""
        decay = 0.01

        def make(params):
            return optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=decay)

        first, *others = record(make)
        some = {name: gradient.copy() for name, gradient in first.grads.items()}
        cancelled = np.float32(-decay * (1 + 1e-6)) * first.params["0.weight"]
        some["0.weight"].flat[7] = cancelled.flat[7]
        recording = replayed([first._replace(grads=some), *others], make)
        fits = measure(recording)
        assert all(is_reproduced(fit, recording) for fit in fits.values())

"""The directions of known optimizers, from recorded moments.

Formulas as in torch.optim 2.13 and optax 0.2: bias corrections included, so that the
rate that belongs to a direction is the learning rate.
"""

from typing import NamedTuple

import numpy as np

from parity.measured import corrections
from parity.measured.history import History
from parity.measured.update import Direction

OUTSIDE = "outside"
INSIDE = "inside"
BEFORE = "outside, before the correction"
PLACES = (OUTSIDE, INSIDE, BEFORE)
"""Where eps stands: sqrt(v^) + eps; sqrt(v^ + eps); (sqrt(v) + eps) corrected."""

NADAM_DECAY = 0.004
"""`momentum_decay` of torch.optim.NAdam."""


class Decays(NamedTuple):
    """Decay rates of both moments.

    Attributes:
      first: of the first.
      second: of the second.
    """

    first: float
    second: float


def nesterov(history: History, increments: np.ndarray, decay: float) -> np.ndarray:
    """[T, N] g + b m' (Sutskever et al. 2013, in torch's form)."""
    assert history.new_m is not None
    return increments + decay * history.new_m


def divided(
    history: History, numerator: np.ndarray, place: str, second: np.ndarray
) -> Direction:
    """Returns numerator / root of the second moment.

    Args:
      history: with a second moment.
      numerator: [T, N].
      place: where eps stands, of `PLACES`.
      second: [T] correction 1 - b2^t of the second moment.
    """
    assert history.new_v is not None
    corrected = np.maximum(history.new_v, 0) / second[:, None]

    def direction(eps: float) -> np.ndarray:
        if place == INSIDE:
            root = np.sqrt(corrected + eps)
        elif place == OUTSIDE:
            root = np.sqrt(corrected) + eps
        else:
            root = np.sqrt(corrected) + eps / np.sqrt(second)[:, None]
        # Where v and eps are 0, so is the gradient.
        return np.divide(numerator, root, out=np.zeros_like(root), where=root > 0)

    return direction


def root_scale(history: History, place: str) -> float:
    """Returns the typical size of what eps is added to."""
    assert history.new_v is not None
    positive = history.new_v[history.new_v > 0]
    if not positive.size:
        return 0.0
    typical = float(np.median(positive))
    return typical if place == INSIDE else float(np.sqrt(typical))


def adam(history: History, place: str, decays: Decays, offset: int | None) -> Direction:
    """m^ / (sqrt(v^) + eps) (Kingma & Ba 2015, Algorithm 1)."""
    assert history.new_m is not None
    first = corrections.factors(decays.first, history.counts, offset)
    second = corrections.factors(decays.second, history.counts, offset)
    return divided(history, history.new_m / first[:, None], place, second)


def adamax(history: History, decays: Decays, offset: int | None) -> np.ndarray:
    """[T, N] m^ / u (Kingma & Ba 2015, Algorithm 2)."""
    assert history.new_m is not None
    assert history.new_v is not None
    first = corrections.factors(decays.first, history.counts, offset)
    numerator = history.new_m / first[:, None]
    u = history.new_v
    return np.divide(numerator, u, out=np.zeros_like(u), where=u > 0)


def torch_nadam(history: History, seen: np.ndarray, decays: Decays) -> Direction:
    """NAdam with the momentum schedule of torch.optim.NAdam (Dozat 2016)."""
    assert history.new_m is not None
    number = np.arange(1, history.counts[-1] + 3)
    momentum = decays.first * (1 - 0.5 * 0.96 ** (number * NADAM_DECAY))
    product = np.cumprod(momentum)
    at = np.array(history.counts)
    of_g = (1 - momentum[at]) / (1 - product[at])
    of_m = momentum[at + 1] / (1 - product[at + 1])
    numerator = of_g[:, None] * seen + of_m[:, None] * history.new_m
    second = corrections.factors(decays.second, history.counts, 0)
    return divided(history, numerator, OUTSIDE, second)


def optax_nadam(history: History, seen: np.ndarray, decays: Decays) -> Direction:
    """NAdam with a constant momentum, as `nesterov=True` of optax.adam."""
    assert history.new_m is not None
    b = decays.first
    now = corrections.factors(b, history.counts, 0)[:, None]
    following = corrections.factors(b, history.counts, 1)[:, None]
    numerator = b * history.new_m / following + (1 - b) * seen / now
    second = corrections.factors(decays.second, history.counts, 0)
    return divided(history, numerator, OUTSIDE, second)


def radam(history: History, place: str, decays: Decays) -> Direction:
    """RAdam: m^ alone until the variance is tractable (Liu et al. 2020)."""
    assert history.new_m is not None
    number = np.array(history.counts, np.float64) + 1
    power = decays.second**number
    longest = 2 / (1 - decays.second) - 1
    length = longest - 2 * number * power / (1 - power)
    ready = length > 5
    shorter, longest = np.where(ready, length, 6.0), max(longest, 6.0)
    numerator = (shorter - 4) * (shorter - 2) * longest
    rectifier = np.sqrt(numerator / ((longest - 4) * (longest - 2) * shorter))
    first = corrections.factors(decays.first, history.counts, 0)
    mean = history.new_m / first[:, None]
    second = corrections.factors(decays.second, history.counts, 0)
    plain = divided(history, mean, place, second)

    def direction(eps: float) -> np.ndarray:
        return np.where(ready[:, None], rectifier[:, None] * plain(eps), mean)

    return direction

"""A family's formula with its settings, and the direction that it gives."""

from typing import NamedTuple

import numpy as np

from parity.measured import directions, lion
from parity.measured.directions import Decays
from parity.measured.history import History
from parity.measured.update import Direction

SGD = "sgd"
MOMENTUM = "momentum"
NESTEROV = "nesterov"
LION = "lion"
RMSPROP = "rmsprop"
RMSPROP_MOMENTUM = "rmsprop with momentum"
ADAGRAD = "adagrad"
ADAM = "adam"
ADAMW = "adamw"
ADAMAX = "adamax"
NADAM = "nadam"
OPTAX_NADAM = "nadam of optax"
RADAM = "radam"
STILL = "never moves"
UNRECOGNISED = "unrecognised"

WITH_EPS = (RMSPROP, ADAGRAD, ADAM, NADAM, OPTAX_NADAM, RADAM)
"""Families whose updates divide by sqrt(v) + eps."""


TAKES_GRADIENT = (
    NESTEROV,
    RMSPROP,
    RMSPROP_MOMENTUM,
    ADAGRAD,
    NADAM,
    OPTAX_NADAM,
)
"""Families whose update takes the gradient itself, with what L2 added to it."""


class Form(NamedTuple):
    """A formula.

    Attributes:
      family: one of the names above.
      place: where eps stands, of `directions.PLACES`; "" without eps.
      offset: added to the count of the bias correction; None: no correction.
      decays: of the moments; Lion's first is the mix of its direction.
    """

    family: str
    place: str = ""
    offset: int | None = 0
    decays: Decays = Decays(0.0, 0.0)


def direction(form: Form, history: History, seen: np.ndarray) -> Direction:
    """Returns eps -> direction of a formula.

    Args:
      form: the formula.
      history: with the moments that it needs.
      seen: [T, N] gradient as the optimizer took it.
    """
    decays, place = form.decays, form.place
    if form.family in (RMSPROP, ADAGRAD):
        return directions.divided(history, seen, place, np.ones(len(seen)))
    if form.family == ADAM:
        return directions.adam(history, place, decays, form.offset)
    if form.family == RADAM:
        return directions.radam(history, place, decays)
    if form.family == NADAM:
        return directions.torch_nadam(history, seen, decays)
    if form.family == OPTAX_NADAM:
        return directions.optax_nadam(history, seen, decays)
    fixed = _without_eps(form, history, seen)
    return lambda eps: fixed


def _without_eps(form: Form, history: History, seen: np.ndarray) -> np.ndarray:
    if form.family == SGD:
        return seen
    if form.family == NESTEROV:
        return directions.nesterov(history, seen, form.decays.first)
    if form.family == LION:
        return lion.direction(history, seen, form.decays.first)
    if form.family == ADAMAX:
        return directions.adamax(history, form.decays, form.offset)
    assert history.new_m is not None
    return history.new_m

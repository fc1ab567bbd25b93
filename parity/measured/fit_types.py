"""What was measured of one tensor."""

from typing import NamedTuple

from parity.measured.corrections import Correction
from parity.measured.form import UNRECOGNISED, Form
from parity.measured.least_squares import NO_QUALITY, Quality
from parity.measured.numbers import UNSEEN, Measured

AVERAGE = "average"
HEAVY_BALL = "heavy ball"
DAMPENED = "dampened heavy ball"
RATE_INSIDE = "rate inside"

COUPLED = "coupled"
DECOUPLED = "decoupled"
EITHER = "coupled or decoupled"


class Raw(NamedTuple):
    """Coefficients as they stand in the recursions, without an interpretation.

    m' = first m + gains_t g + pull w, and v' = second v + squares_t (g_t seen)^2.

    Attributes:
      gains: of the gradient in the first moment, one a step.
      pull: of the parameter in the first moment.
      squares: of the squared gradient in the second moment, one a step.
      coefficients: of the direction in the update, one a step.
      shrinks: of the parameter in the update, one a step.
    """

    gains: tuple[Measured, ...] = ()
    pull: Measured = UNSEEN
    squares: tuple[Measured, ...] = ()
    coefficients: tuple[Measured, ...] = ()
    shrinks: tuple[Measured, ...] = ()


class Fit(NamedTuple):
    """What an optimizer did to one tensor.

    Attributes:
      name: of the tensor.
      counts: recorded update counts of the steps below.
      family: of `form`; `UNRECOGNISED` if no formula holds.
      alternatives: families that the recording does not tell from it.
      quality: residuals of the worst of moments and updates.
      rates: learning rates, one a step.
      b1: decay of the first moment (Lion: of the direction's mix).
      b2: decay of the second moment (Lion: of its only moment).
      complement: what multiplies the squared gradient, 1 - b2 where exact.
      eps: added to the root, or within.
      eps_place: of `directions.PLACES`; "" if not measurable.
      decay: coefficient of weight decay.
      decay_kind: coupled (L2), decoupled or either; "" if no decay is seen.
      factors: what multiplied the gradient before the optimizer, one a step.
      norms: global norms of the recorded gradients, one a step.
      clip_norm: norm that the gradients were clipped to.
      clip_form: whose norm that is, of `clipping`; "" if they were not clipped.
      value_bound: what each entry of the gradients was clipped to.
      correction: of the moments; None in families without one.
      momentum_form: average, heavy ball, dampened or rate inside; "" if none or
        unknown.
      dampening: 1 - the gradient's factor from the second update on.
      zero_steps: counts of steps that were fed zero gradients.
      is_stale: the update follows the gradient of the step before.
      is_rebuilt: the moments were not recorded, but rebuilt from the gradients.
      still: entries that never move though they have a gradient.
      size: entries of the tensor.
      borrowed_from: tensor whose numbers hold here as well; "" if measured here.
      form: the formula, for `predict`.
      raw: coefficients, for `predict`.
    """

    name: str
    counts: tuple[int, ...]
    family: str = UNRECOGNISED
    alternatives: tuple[str, ...] = ()
    quality: Quality = NO_QUALITY
    rates: tuple[Measured, ...] = ()
    b1: Measured = UNSEEN
    b2: Measured = UNSEEN
    complement: Measured = UNSEEN
    eps: Measured = UNSEEN
    eps_place: str = ""
    decay: Measured = UNSEEN
    decay_kind: str = ""
    factors: tuple[Measured, ...] = ()
    norms: tuple[float, ...] = ()
    clip_norm: Measured = UNSEEN
    clip_form: str = ""
    value_bound: Measured = UNSEEN
    correction: Correction | None = None
    momentum_form: str = ""
    dampening: Measured = UNSEEN
    zero_steps: tuple[int, ...] = ()
    is_stale: bool = False
    is_rebuilt: bool = False
    still: int = 0
    size: int = 0
    borrowed_from: str = ""
    form: Form = Form(UNRECOGNISED)
    raw: Raw = Raw()

    @property
    def is_recognised(self) -> bool:
        """True if a formula holds, so that the numbers mean something."""
        return self.family != UNRECOGNISED

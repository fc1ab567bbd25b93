"""What an optimizer did, tensor by tensor, from its recorded steps."""

from collections.abc import Sequence

from parity.measured.fit_types import Fit
from parity.measured.form import STILL, UNRECOGNISED
from parity.measured.history import History, Step, of_tensor, sampled, still
from parity.measured.kinds import fit_moving


def measure(steps: Sequence[Step]) -> dict[str, Fit]:
    """Measures what the optimizer did to every tensor.

    Args:
      steps: consecutive updates, without those that were skipped; at least 2.

    Returns:
      Name -> fit. A tensor that no formula fits is "unrecognised".
    """
    return {name: measure_tensor(of_tensor(steps, name)) for name in steps[0].params}


def measure_tensor(history: History, name: str = "") -> Fit:
    """Measures one tensor; see `measure`."""
    fixed = still(history)
    size = history.w.shape[1]
    common = dict(name=name, counts=history.counts, size=size)
    if fixed.all():
        return Fit(**common, family=STILL, still=size)
    moving = sampled(history.at(~fixed))
    fit = fit_moving(moving)
    return fit

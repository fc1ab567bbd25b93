"""Which parameters `--freeze` leaves as they start.

A frozen parameter has no gradient, is neither penalized nor decayed, does not count in
the norm that clips, and the optimizer keeps nothing of it. The forward pass reads it,
and gradients flow through it to the layers before. Running statistics are no
parameters: they move as ever.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

Array = TypeVar("Array")
SHOWN = 8
"""Names of parameters in a message."""


def is_trained(experiment: Experiment, name: str) -> bool:
    """Returns whether a parameter is trained.

    Args:
      experiment: its `--freeze` is searched in the name; empty: all are trained.
      name: flat name, as hidden_0/kernel.
    """
    return not (experiment.freeze and re.search(experiment.freeze, name))


def trained(experiment: Experiment, params: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the parameters that are trained, by flat name."""
    return {name: x for name, x in params.items() if is_trained(experiment, name)}


def check(experiment: Experiment, names: Iterable[str]) -> None:
    """Raises UserError if `--freeze` leaves all parameters of a network, or none.

    Args:
      experiment: flags.
      names: flat names of the network's parameters.
    """
    if not experiment.freeze:
        return
    names = list(names)
    trained = [name for name in names if is_trained(experiment, name)]
    if trained and len(trained) < len(names):
        return
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    found = "no parameter" if trained else "all parameters"
    raise UserError(
        f"--freeze: {experiment.freeze!r} is found in {found} of "
        f"--model={experiment.model}; they are {shown}"
    )

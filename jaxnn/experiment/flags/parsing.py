"""Parsed flags -> the checked `Experiment`."""

import dataclasses

from absl import flags

from jaxnn.experiment.catalogue import is_own, split_own
from jaxnn.experiment.flags import consistency, options
from jaxnn.experiment.flags.config import Experiment


def define_flags(values: flags.FlagValues) -> None:
    """Defines one absl flag per field of `Experiment` on `values`."""
    options.define_flags(dataclasses.fields(Experiment), values)


def from_flags(values: flags.FlagValues, default_precision: str) -> Experiment:
    """Returns the checked `Experiment` of parsed flags.

    Args:
      values: parsed flags, defined by `define_flags`.
      default_precision: precision of this program if `--precision` is empty.

    Raises:
      UserError: a value is unknown or out of range, or contradicts another flag.
    """
    fields = options.read_flags(dataclasses.fields(Experiment), values)
    experiment = Experiment(**fields)
    experiment = experiment.replace(
        precision=experiment.precision or default_precision,
        model=absolute(experiment.model),
        # A flagfile would lose a tab at the end of a line.
        delimiter={"\t": "tab", "\\t": "tab"}.get(
            experiment.delimiter, experiment.delimiter
        ),
    )
    consistency.check(experiment)
    return experiment


def absolute(model: str) -> str:
    """Returns `--model` such that it names the same file from any folder."""
    if not is_own(model):
        return model
    path, name = split_own(model)
    return f"{path.absolute()}:{name}"

"""Flags -> the checked `Experiment`."""

import dataclasses

from absl import flags

from jaxnn.experiment.flags import consistency, options
from jaxnn.experiment.flags.config import Experiment


def define_flags(values: flags.FlagValues) -> None:
    """Defines one absl flag per field of `Experiment` on `values`."""
    options.define_flags(dataclasses.fields(Experiment), values)


def from_flags(values: flags.FlagValues, default_precision: str) -> Experiment:
    """The checked `Experiment` of parsed flags.

    Args:
      values: parsed flags, as `define_flags` defined them.
      default_precision: what an empty `--precision` means to this program.

    Raises:
      UserError: a value out of range, unknown, or at odds with another flag.
    """
    experiment = Experiment(
        **options.read_flags(dataclasses.fields(Experiment), values)
    )
    experiment = experiment.replace(precision=experiment.precision or default_precision)
    consistency.check(experiment)
    return experiment

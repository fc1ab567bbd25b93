"""Finds out whether the data set of an experiment is at hand, without training."""

from collections.abc import Sequence

from jaxnn.experiment.data.load import USED_BY, load_dataset
from jaxnn.experiment.errors import MissingData, UserError
from jaxnn.experiment.flags import command_line, parsing

FROM_OUTSIDE = USED_BY["data_path"]
"""Data sets that are read from files or downloaded; all others are embedded."""


def missing_data(arguments: Sequence[str]) -> str:
    """Returns why the data of an experiment are not at hand; empty if they are.

    Reads the data as training would, and so downloads what training would download.
    Whatever else is wrong with flags or data is left to the program to say.

    Args:
      arguments: flags of the experiment, perhaps among others.
    """
    try:
        values = command_line.parse_arguments(
            ["", *arguments], parsing.define_flags, forwards=True
        ).values
        experiment = parsing.from_flags(values, default_precision="fp32")
        if experiment.dataset in FROM_OUTSIDE:
            load_dataset(experiment)
    except MissingData as error:
        return str(error)
    except UserError:
        return ""
    return ""

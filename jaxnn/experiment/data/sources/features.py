"""`--features`: which columns of a table to train on."""

from collections.abc import Sequence

from jaxnn.experiment.data.sources.labels import shortened
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


def chosen(experiment: Experiment, names: Sequence[str]) -> list[int]:
    """Returns the column indices that `--features` lists, or all if it is empty.

    Args:
      experiment: its `features`.
      names: names of all columns except the target.

    Raises:
      UserError: there is no such column, or it is listed twice.
    """
    for place, column in enumerate(experiment.features):
        if column >= len(names):
            raise UserError(
                f"--features: column {column} asked for, "
                f"--dataset={experiment.dataset} has {len(names)}, numbered from 0: "
                f"{shortened(tuple(names))}"
            )
        if column in experiment.features[:place]:
            raise UserError(f"--features: column {column} is named twice")
    return list(experiment.features) or list(range(len(names)))

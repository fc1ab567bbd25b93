"""Data sets in CSV files: numbers as they are, text one-hot encoded, one target."""

import pathlib

import numpy as np

from jaxnn.experiment.data import splits, table_file
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.description import Column, Description, encode
from jaxnn.experiment.data.sources import features, labels
from jaxnn.experiment.data.table_file import TableFile
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


def csv(experiment: Experiment) -> Dataset:
    """Returns the rows of `--data_path`, with the column `--target` to predict.

    The file is UTF-8 with a header and commas between cells.

    Raises:
      UserError: something is wrong with the file, a line, a column or a cell.
    """
    table = table_file.read(pathlib.Path(experiment.data_path))
    target = _target(experiment, table)
    others = [name for name in table.columns if name != target]
    names = [others[column] for column in features.chosen(experiment, others)]
    numeric = {name: table_file.is_numeric(table, name) for name in names}

    found = labels.interpret(
        experiment,
        _values(table, target),
        lambda row, text: table.error(row, target, text),
    )
    split = splits.shuffled(experiment, len(table.lines), found.classes)

    # Categories come from the training split alone, as the scaling does: a text that
    # only the test split holds is unknown, as it would be in new data.
    columns = []
    for name in names:
        known = ()
        if not numeric[name]:
            known = table_file.categories(table, name, split.train)
        columns.append(Column(name, known))

    ignored = tuple(name for name in table.columns if name not in names)
    description = Description(
        found.task, columns=tuple(columns), target=target, ignored=ignored
    )
    return Dataset.of_splits(
        split,
        encode(table, description.columns),
        found.targets,
        found.task,
        class_names=found.class_names,
        feature_names=tuple(
            name for column in columns for name in column.feature_names
        ),
        description=description,
    )


def _target(experiment: Experiment, table: TableFile) -> str:
    target = experiment.target or list(table.columns)[-1]
    if target not in table.columns:
        raise UserError(
            f"--target: {experiment.data_path} has no column {target!r}; it has "
            f"{labels.shortened(tuple(table.columns))}"
        )
    if len(table.columns) == 1:
        raise UserError(
            f"--data_path: {experiment.data_path}: has only the column {target!r}, and "
            "nothing to predict it from; commas must separate the columns"
        )
    return target


def _values(table: TableFile, target: str) -> np.ndarray:
    cells = table.columns[target]
    return np.array(cells, np.float64 if table_file.is_numeric(table, target) else str)

"""Data sets in CSV files: numbers as they are, text one-hot encoded, one target."""

import pathlib
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data import rounding, splits
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.description import Column, Description, encode
from jaxnn.experiment.data.sources import features, labels
from jaxnn.experiment.data.splits import SplitIndices
from jaxnn.experiment.data.tables import columns, summary, table_file
from jaxnn.experiment.data.tables.dialect import Asked
from jaxnn.experiment.data.tables.table_file import TableFile
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


def csv(experiment: Experiment) -> Dataset:
    """Returns the rows of `--data_path`, with the column `--target` to predict.

    The file is UTF-8. Delimiter, decimal mark and whether the first line names the
    columns are found out, unless flags tell.

    Inputs are float64, so that they are scaled before they are rounded.

    Raises:
      UserError: something is wrong with the file, a line, a column or a cell.
    """
    read = _read(experiment)
    used = read.description.columns
    return Dataset.of_splits(
        read.split,
        read.inputs,
        read.found.targets,
        read.found.task,
        class_names=read.found.class_names,
        feature_names=tuple(name for column in used for name in column.feature_names),
        description=read.description,
        notes=read.notes,
    )


class _Read(NamedTuple):
    """What is kept of a file; its cells, which take as much memory, are not."""

    inputs: np.ndarray
    found: labels.Labels
    split: SplitIndices
    description: Description
    notes: tuple[str, ...]


def _read(experiment: Experiment) -> _Read:
    # A first line that has the target is the header, whatever it looks like.
    known = [experiment.target] if experiment.target else []
    table = table_file.read(
        pathlib.Path(experiment.data_path), asked(experiment), known
    )
    target = _target(experiment, table)
    others = [name for name in table.columns if name != target]
    names = [others[column] for column in features.chosen(experiment, others)]
    numeric = {name: columns.is_numeric(table, name) for name in names}

    values = columns.labels(table, target)
    found = labels.interpret(
        experiment, values, lambda row, text: table.error(row, target, text)
    )
    split = splits.shuffled(experiment, table.num_rows, found.classes)

    # Categories come from the training split alone, as the scaling does: a text that
    # only the test split holds is unknown, as it would be in new data.
    chosen = tuple(
        Column(
            name, () if numeric[name] else columns.categories(table, name, split.train)
        )
        for name in names
    )
    ignored = tuple(name for name in table.columns if name not in names)
    notes = (
        *summary.lines(table, target, names),
        *rounding.target_notes(f"column {target!r}", values, found.task),
    )
    return _Read(
        encode(table, chosen),
        found,
        split,
        Description(found.task, columns=chosen, target=target, ignored=ignored),
        notes,
    )


def asked(experiment: Experiment) -> Asked:
    """Returns what the flags say about the dialect of the file."""
    return Asked(experiment.delimiter, experiment.decimal, experiment.noheader)


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
            "nothing to predict it from; say what separates the columns with "
            "--delimiter"
        )
    return target

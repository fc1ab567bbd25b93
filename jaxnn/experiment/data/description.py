"""What it takes to read new rows as the training rows were read: columns, encodings,
scaling. Kept as JSON."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data import table_file
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.data.table_file import TableFile
from jaxnn.experiment.errors import UserError

FORMAT = 1


class Column(NamedTuple):
    """One column of a table.

    Attributes:
      name: in the header.
      categories: texts that each became an input, 1 where the cell is that text; empty:
        the column holds numbers.
    """

    name: str
    categories: tuple[str, ...] = ()

    @property
    def feature_names(self) -> list[str]:
        """Names of its inputs."""
        return [f"{self.name}={text}" for text in self.categories] or [self.name]


class Description(NamedTuple):
    """How inputs were made.

    Attributes:
      task: as in `Dataset`.
      class_names: as in `Dataset`.
      columns: what the inputs are made of, in order; empty: these data are not a table.
      target: name of the target, or empty.
      ignored: columns that a table may have besides, and that are not read.
      input_shape: of one example.
      scaling: as in `Dataset`.
      vocabulary: the token ids' texts, in order; empty: the inputs are not tokens.
    """

    task: str
    class_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    target: str = ""
    ignored: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    scaling: Scaling | HostScaling | None = None
    vocabulary: tuple[str, ...] = ()


def to_json(description: Description) -> str:
    """The text of `data.json`; every number is written exactly."""
    entries = description._asdict() | {"format": FORMAT}
    entries["columns"] = [column._asdict() for column in description.columns]
    if description.scaling is not None:
        where = "host" if isinstance(description.scaling, HostScaling) else "device"
        entries["scaling"] = {
            "where": where,
            **{k: v.tolist() for k, v in description.scaling._asdict().items()},
        }
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str, name: str = "data.json") -> Description:
    """The description that `to_json` wrote.

    Args:
      text: of the file.
      name: of the file, for messages.

    Raises:
      UserError: the text is something else.
    """
    try:
        entries = json.loads(text)
        if entries.pop("format") != FORMAT:
            raise ValueError("of another format")
        entries = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in entries.items()
        }
        columns = tuple(
            Column(column["name"], tuple(column["categories"]))
            for column in entries.pop("columns")
        )
        return Description(
            columns=columns, scaling=_scaling(entries.pop("scaling")), **entries
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{name}: does not describe data ({error}); train again to write it anew"
        ) from None


def encode_rows(description: Description, path: str | pathlib.Path) -> np.ndarray:
    """The rows of a CSV file as inputs of the network: [rows, *input_shape] float32,
    encoded and scaled.

    The columns may be in any order; the target's may be there and is not read. A text
    that training did not know is 0 in all of its column's inputs.

    Args:
      description: of the training data.
      path: the file.

    Raises:
      UserError: the data were no table, a column is missing or unknown, or a cell
        cannot be read.
    """
    if not description.columns:
        raise UserError(
            "--data_path: these inputs are not rows of a table; a CSV file cannot "
            "hold them"
        )
    table = table_file.read(pathlib.Path(path))
    _check_columns(description, table)
    inputs = encode(table, description.columns)
    inputs = inputs.reshape(-1, *description.input_shape)
    return (
        inputs
        if description.scaling is None
        else _scaled(table, description.scaling, inputs)
    )


def encode(table: TableFile, columns: tuple[Column, ...]) -> np.ndarray:
    """[rows, features] float32: each column's numbers or categories side by side.

    Raises:
      UserError: a cell is empty or not a number where one is due.
    """
    return np.concatenate([_encode_column(table, column) for column in columns], axis=1)


def _check_columns(description: Description, table: TableFile) -> None:
    known = [column.name for column in description.columns]
    missing = [name for name in known if name not in table.columns]
    unknown = [
        name
        for name in table.columns
        if name not in known and name not in description.ignored
    ]
    for names, problem in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise UserError(
                f"--data_path: {table.path}: column {names[0]!r} is {problem}; the "
                f"network was trained on {', '.join(known)}"
            )


def _encode_column(table: TableFile, column: Column) -> np.ndarray:
    if not column.categories:
        return table_file.numbers(table, column.name)[:, None]
    if "" in table.columns[column.name]:
        raise table.error(
            table.columns[column.name].index(""), column.name, table_file.EMPTY
        )
    return table_file.one_hot(table, column.name, column.categories)


def _scaled(
    table: TableFile, scaling: Scaling | HostScaling, inputs: np.ndarray
) -> np.ndarray:
    scaled = scaling.apply(inputs)
    bad = ~np.isfinite(scaled.reshape(len(scaled), -1)).all(axis=1)
    if bad.any():
        raise UserError(
            f"--data_path: {table.path}:{table.lines[bad.argmax()]}: is beyond "
            "float32's range once scaled"
        )
    return scaled


def _scaling(entry: dict[str, Any] | None) -> Scaling | HostScaling | None:
    if entry is None:
        return None
    where = entry.pop("where")
    kind, dtype = {"host": (HostScaling, np.float64), "device": (Scaling, np.float32)}[
        where
    ]
    return kind(**{name: np.asarray(values, dtype) for name, values in entry.items()})

"""Description of a data set: what is needed to encode new rows like its training rows.

It is stored as `data.json`: columns, encodings of text, scaling, vocabulary.
"""

import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.data.tables import columns as table_columns
from jaxnn.experiment.data.tables import table_file
from jaxnn.experiment.data.tables.dialect import Asked
from jaxnn.experiment.data.tables.table_file import TableFile
from jaxnn.experiment.errors import UserError, one_line

# Version of the file format.
FORMAT = 1


class Column(NamedTuple):
    """One column of a table.

    Attributes:
      name: name in the header.
      categories: texts that are one-hot encoded, one input each; empty: the column
        holds numbers.
    """

    name: str
    categories: tuple[str, ...] = ()

    @property
    def feature_names(self) -> list[str]:
        """Names of the inputs that the column becomes."""
        return [f"{self.name}={text}" for text in self.categories] or [self.name]


class Description(NamedTuple):
    """How the inputs of a data set were made.

    Attributes:
      task: as in `Dataset`.
      class_names: as in `Dataset`.
      columns: columns that the inputs consist of, in order; empty: not a table.
      target: name of the target column, or empty.
      ignored: further columns that a table may have; they are not read.
      input_shape: shape of one example.
      scaling: as in `Dataset`.
      vocabulary: texts of the token ids, in order; empty: the inputs are not tokens.
      num_outputs: outputs of a network; 0: written before this was stored.
    """

    task: str
    class_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    target: str = ""
    ignored: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    scaling: Scaling | HostScaling | None = None
    vocabulary: tuple[str, ...] = ()
    num_outputs: int = 0


def to_json(description: Description) -> str:
    """Returns the text of `data.json`."""
    entries = description._asdict() | {"format": FORMAT}
    entries["columns"] = [column._asdict() for column in description.columns]
    scaling = description.scaling
    if scaling is not None:
        where = "host" if isinstance(scaling, HostScaling) else "device"
        # json writes the shortest text that reads back as the same float64, and every
        # float32 is a float64: the scaling is restored to the bit.
        numbers = {name: array.tolist() for name, array in scaling._asdict().items()}
        entries["scaling"] = {"where": where, **numbers}
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str, name: str = "data.json") -> Description:
    """Reads the text that `to_json` wrote.

    Args:
      text: content of the file.
      name: name of the file, for messages.

    Raises:
      UserError: the text is something else.
    """
    try:
        read = json.loads(text)
        if read.pop("format") != FORMAT:
            raise ValueError("of another format")
        entries: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in read.items()
        }
        columns = tuple(
            Column(column["name"], tuple(column["categories"]))
            for column in entries.pop("columns")
        )
        scaling = _scaling(entries.pop("scaling"))
        description = Description(columns=columns, scaling=scaling, **entries)
        _check(description)
        return description
    # Whatever Python raises on JSON of another structure.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{name}: does not describe data ({error}); train again to write it anew"
        ) from None


def _check(description: Description) -> None:
    """Raises ValueError if a value is of another kind or shape than it must be."""
    described = description
    texts = [
        *(described.task, described.target, *described.class_names),
        *(*described.ignored, *described.vocabulary),
        *(text for name, known in described.columns for text in (name, *known)),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name is no text")
    numbers = [*described.input_shape, described.num_outputs]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a size is no whole number from 0")
    width = sum(len(column.feature_names) for column in described.columns)
    if described.columns and width != math.prod(described.input_shape):
        raise ValueError(f"{width} inputs of columns are not its input_shape")
    for array in described.scaling or ():
        if np.broadcast_shapes(array.shape, described.input_shape) != (
            described.input_shape
        ):
            raise ValueError("its scaling is not of its input_shape")


def read_rows(
    description: Description,
    path: str | pathlib.Path,
    asked: Asked = Asked(),  # noqa: B008
) -> TableFile:
    """Reads the rows of a CSV file that are to be inputs.

    Columns may be in any order, and the target may be among them; it is not read.

    Args:
      description: description of the training data.
      path: CSV file.
      asked: what is known of the file's dialect.

    Raises:
      UserError: the training data are not a table, the file cannot be read, or a column
        is missing or unknown.
    """
    if not description.columns:
        raise UserError(
            "--data_path: these inputs are not rows of a table; a CSV file cannot "
            "hold them"
        )
    names = [column.name for column in description.columns]
    texts = {column.name for column in description.columns if column.categories}
    table = table_file.read(pathlib.Path(path), asked, names, texts)
    _check_columns(description, table)
    return table


def encode_rows(description: Description, table: TableFile) -> np.ndarray:
    """Returns the rows of a table as inputs: [rows, *input_shape] float32, scaled.

    A text that the training split does not hold is 0 in all inputs of its column.

    Args:
      description: description of the training data.
      table: as from `read_rows`.

    Raises:
      UserError: a cell cannot be read, or is beyond float32's range once scaled.
    """
    inputs = encode(table, description.columns)
    inputs = inputs.reshape(-1, *description.input_shape)
    if description.scaling is None:
        return inputs.astype(np.float32)
    return _scaled(table, description.scaling, inputs)


def unknown_texts(description: Description, table: TableFile) -> list[str]:
    """Returns a line on each column with texts that the training split did not hold."""
    lines = []
    for column in description.columns:
        if not column.categories:
            continue
        held = table_columns.texts(table, column.name)
        known = set(column.categories)
        places = [place for place, name in enumerate(held.names) if name not in known]
        if places:
            count = int(held.counts()[places].sum())
            row = held.first_row(places[0])
            lines.append(
                f"{table.path}: column {column.name!r}: {count} of {table.num_rows} "
                f"rows hold a text that training did not know, e.g. "
                f"{held.names[places[0]]!r} in line {table.line(row)}; all inputs of "
                "the column are 0 there"
            )
    return lines


def encode(table: TableFile, columns: tuple[Column, ...]) -> np.ndarray:
    """Returns [rows, features] float64: the encoded columns side by side.

    Raises:
      UserError: a cell is empty, or not a number in a column of numbers.
    """
    widths = [len(column.feature_names) for column in columns]
    inputs = np.empty((table.num_rows, sum(widths)))
    first = 0
    for column, width in zip(columns, widths):
        inputs[:, first : first + width] = _encode_column(table, column)
        first += width
    return inputs


def _check_columns(description: Description, table: TableFile) -> None:
    known = [column.name for column in description.columns]
    missing = [name for name in known if name not in table.columns]
    allowed = (*known, *description.ignored)
    unknown = [name for name in table.columns if name not in allowed]
    for names, problem in ((missing, "missing"), (unknown, "unknown")):
        if names:
            raise UserError(
                f"--data_path: {table.path}: column {names[0]!r} is {problem}; the "
                f"network was trained on {one_line(', '.join(known))}"
            )


def _encode_column(table: TableFile, column: Column) -> np.ndarray:
    if not column.categories:
        return table_columns.numbers(table, column.name)[:, None]
    table_columns.refuse_empty(table, column.name)
    return table_columns.one_hot(table, column.name, column.categories)


def _scaled(
    table: TableFile, scaling: Scaling | HostScaling, inputs: np.ndarray
) -> np.ndarray:
    scaled = scaling.apply(inputs)
    bad = ~np.isfinite(scaled.reshape(len(scaled), -1)).all(axis=1)
    if bad.any():
        raise UserError(
            f"--data_path: {table.path}:{table.line(int(bad.argmax()))}: is beyond "
            "float32's range once scaled"
        )
    return scaled


def _scaling(entry: dict[str, Any] | None) -> Scaling | HostScaling | None:
    if entry is None:
        return None
    kinds = {"host": (HostScaling, np.float64), "device": (Scaling, np.float32)}
    kind, dtype = kinds[entry.pop("where")]
    return kind(**{name: np.asarray(values, dtype) for name, values in entry.items()})

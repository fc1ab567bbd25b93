"""Says what was read: how the file is written, and what each column holds."""

from collections.abc import Collection, Iterator

from jaxnn.experiment.data.tables import columns, dialect
from jaxnn.experiment.data.tables.cells import Numbers
from jaxnn.experiment.data.tables.notation import looks_like
from jaxnn.experiment.data.tables.table_file import TableFile
from jaxnn.experiment.errors import one_line

# Columns that have a line of their own.
MOST_COLUMNS = 40


def lines(table: TableFile, target: str, inputs: Collection[str]) -> list[str]:
    """Returns a line on the file, one a column, and notes on what is amiss.

    Args:
      table: what was read.
      target: column to predict.
      inputs: columns to predict it from.
    """
    names = [name for name in table.columns if name == target or name in inputs]
    told = [_column(table, name, target) for name in names]
    if len(told) > MOST_COLUMNS:
        numeric = sum(line.endswith(": number") for line in told)
        rest = f"  ... {len(told)} columns in all, {numeric} of them numbers"
        told = [*told[: MOST_COLUMNS - 1], rest]
    merged = [note for name in inputs for note in _merged(table, name)]
    return [_file(table), *told, *merged]


def _file(table: TableFile) -> str:
    written = table.dialect
    mark = dialect.NAMES.get(written.delimiter, repr(written.delimiter))
    decimal = ", decimal commas" if written.decimal == "," else ""
    header = "" if written.header else "; no header, the first line is read as data"
    return (
        f"read {table.path}: {table.num_rows} rows, {len(table.columns)} columns "
        f"separated by {mark}{decimal}{header}"
    )


def _column(table: TableFile, name: str, target: str) -> str:
    role = " (target)" if name == target else ""
    # A name in quotes may hold a line break.
    return f"  {one_line(name)}{role}: {_held(table, name)}"


def _held(table: TableFile, name: str) -> str:
    held = table.columns[name]
    if isinstance(held, Numbers) or columns.is_numeric(table, name):
        return "number"
    text = f"text of {len(held.names)} value{'s' * (len(held.names) > 1)}"
    hint = looks_like(held.names, table.dialect.decimal)
    return f"{text}; {hint}" if hint else text


def _merged(table: TableFile, name: str) -> Iterator[str]:
    pair = columns.merged(table, name)
    if pair:
        yield (
            f"note: column {name!r}: {pair[0]} and {pair[1]} are one number in "
            "float64; if they are names, put a letter before them, else subtract an "
            "offset"
        )

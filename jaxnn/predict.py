"""Applies a trained network to the rows of a CSV file.

    python -m jaxnn.predict --workdir=RUN --data_path=new.csv --output=predictions.csv

RUN is the folder of a run, e.g. runs/breast_cancer-jax-...

Writes a CSV file with a row for each row read: the value of a regression; otherwise the
class and the probability of each class. The columns are those the network was trained
on, in any order; the target column may be there.
"""

import csv
import io
import pathlib
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import flags
from scipy.special import expit, softmax

from jaxnn import finished_run, gathering, train
from jaxnn.experiment.catalogue import BINARY, LANGUAGE, MULTICLASS
from jaxnn.experiment.data import description
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.data.tables.dialect import Asked
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

ROWS = 4096
"""Largest number of rows of a batch."""


def main(values: flags.FlagValues) -> None:
    """Run and rows -> predictions, in a file or on stdout."""
    run = finished_run.load(values.workdir)
    if not values.data_path:
        raise UserError("--data_path: give the CSV file to predict")
    if run.description.task == LANGUAGE:
        raise UserError(
            "--workdir: holds a language model; use python -m jaxnn.generate"
        )
    output = pathlib.Path(values.output) if values.output else None
    if output and output.exists() and not values.overwrite:
        raise UserError(
            f"--output: {output} exists; choose another file or add --overwrite"
        )
    train.configure(run.experiment)
    rows = description.read_rows(
        run.description, values.data_path, asked(values, run.experiment)
    )
    inputs = description.encode_rows(run.description, rows)
    for line in description.unknown_texts(run.description, rows):
        print(f"note: {line}", file=sys.stderr)
    outputs = predict(run.forward, inputs)
    text = to_csv(*table(run.description, outputs))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        artifacts.write_text(output, text)
    except OSError as error:
        raise UserError(f"--output: cannot write {output}: {error.strerror}") from None
    print(f"{len(inputs)} predictions in {output}")


def asked(values: flags.FlagValues, experiment: Experiment) -> Asked:
    """Returns what flags say about the dialect of the rows, else those of training."""
    return Asked(
        values.delimiter or experiment.delimiter,
        values.decimal or experiment.decimal,
        values.noheader,
    )


def predict(forward: Callable, inputs: np.ndarray) -> np.ndarray:
    """Applies a network in batches of one size.

    Args:
      forward: inputs [batch, ...] -> outputs [batch, outputs].
      inputs: [n, ...], preprocessed.

    Returns:
      [n, outputs] float64.
    """
    # Jitted once: every batch has the same shape.
    apply = jax.jit(lambda rows: forward(gathering.scale_bytes(rows, None)))
    outputs = [
        np.asarray(apply(rows), np.float64)[:count] for rows, count in _batches(inputs)
    ]
    return np.concatenate(outputs)


def table(
    described: Description, outputs: np.ndarray
) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the predictions.

    Args:
      described: names of target and classes.
      outputs: [n, outputs] values or logits.
    """
    if described.task in (BINARY, MULTICLASS):
        return _class_table(described, outputs)
    name = described.target or "prediction"
    header = [name]
    if outputs.shape[1] > 1:
        header = [f"{name}_{number}" for number in range(outputs.shape[1])]
    return header, [[f"{value:.9g}" for value in row] for row in outputs]


def _class_table(
    described: Description, logits: np.ndarray
) -> tuple[list[str], list[list[str]]]:
    if described.task == BINARY:
        # s(-z) instead of 1 - s(z), which cancels.
        probabilities = np.concatenate([expit(-logits), expit(logits)], axis=1)
        classes = (logits[:, 0] >= 0).astype(int)
    else:
        probabilities = softmax(logits, axis=1)
        classes = logits.argmax(axis=1)
    names = described.class_names
    header = [described.target or "class", *(f"p({name})" for name in names)]
    rows = [
        [names[number], *(f"{probability:.9g}" for probability in row)]
        for number, row in zip(classes, probabilities)
    ]
    return header, rows


def to_csv(header: list[str], rows: list[list[str]]) -> str:
    """Returns the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


def _batches(inputs: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yields batches of one size, and how many rows of each are not padding."""
    size = min(ROWS, len(inputs))
    for start in range(0, len(inputs), size):
        rows = inputs[start : start + size]
        padding = np.repeat(rows[:1], size - len(rows), axis=0)
        yield np.concatenate([rows, padding]), len(rows)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", "", "Run directory.", flag_values=values)
    flags.DEFINE_string(
        "data_path",
        "",
        "CSV file with a header and the columns that the network was trained on.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "delimiter",
        "",
        "Character between cells, or tab; empty: as in training, where it was given, "
        "else find out.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "decimal",
        "",
        "Mark before decimals; empty: as in training, where it was given, else find "
        "out.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "noheader",
        False,
        "The first line holds data; its columns are named x0, x1, ...",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", "", "CSV file to write; empty: print to stdout.", flag_values=values
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace the output file.", flag_values=values
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_tool(main, __doc__, define_flags)


if __name__ == "__main__":
    command()

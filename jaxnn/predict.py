"""Applies a trained network to the rows of a CSV file.

    python -m jaxnn.predict --workdir=runs/breast_cancer-jax-... --data_path=new.csv --output=predictions.csv

Writes a CSV with a row for each row read: the value of a regression; the class and the
probability of each class otherwise. The columns are those the network was trained on,
in any order; the target may be there.
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
from jaxnn.experiment.data import description
from jaxnn.experiment.data.dataset import BINARY, LANGUAGE, MULTICLASS
from jaxnn.experiment.data.description import Description
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line

ROWS = 4096


def main(values: flags.FlagValues) -> None:
    """Run and rows -> predictions, in a file or on stdout."""
    run = finished_run.load(values["workdir"].value)
    if not values["data_path"].value:
        raise UserError("--data_path: give the CSV file to predict")
    if run.description.task == LANGUAGE:
        raise UserError(
            "--workdir: holds a language model; use python -m jaxnn.generate"
        )
    output = pathlib.Path(values["output"].value) if values["output"].value else None
    if output and output.exists() and not values["overwrite"].value:
        raise UserError(
            f"--output: {output} exists; choose another file or add --overwrite"
        )
    train.configure(run.experiment)
    inputs = description.encode_rows(run.description, values["data_path"].value)
    text = to_csv(*table(run.description, predict(run.forward, inputs)))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        artifacts.write_text(output, text)
    except OSError as error:
        raise UserError(f"--output: cannot write {output}: {error.strerror}") from None
    print(f"{len(inputs)} predictions in {output}")


def predict(forward: Callable, inputs: np.ndarray) -> np.ndarray:
    """Outputs [n, outputs] float64 of scaled inputs [n, ...], in batches of one size."""
    apply = jax.jit(lambda rows: forward(gathering.scale_bytes(rows, None)))
    return np.concatenate(
        [np.asarray(apply(rows), np.float64)[:count] for rows, count in _chunks(inputs)]
    )


def table(
    described: Description, outputs: np.ndarray
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the predictions.

    Args:
      described: names target and classes.
      outputs: [n, outputs] values or logits.
    """
    if described.task not in (BINARY, MULTICLASS):
        names = [described.target or "prediction"]
        header = (
            names
            if outputs.shape[1] == 1
            else [f"{names[0]}_{number}" for number in range(outputs.shape[1])]
        )
        return header, [[f"{value:.9g}" for value in row] for row in outputs]
    is_binary = described.task == BINARY
    shares = (
        np.concatenate([expit(-outputs), expit(outputs)], axis=1)
        if is_binary
        else softmax(outputs, axis=1)
    )
    classes = (outputs[:, 0] >= 0).astype(int) if is_binary else outputs.argmax(axis=1)
    header = [
        described.target or "class",
        *(f"p({name})" for name in described.class_names),
    ]
    return header, [
        [described.class_names[number], *(f"{share:.9g}" for share in row)]
        for number, row in zip(classes, shares)
    ]


def to_csv(header: list[str], rows: list[list[str]]) -> str:
    """The text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


def _chunks(inputs: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of one size, the last one padded with its first row; and how many of each
    are rows."""
    size = min(ROWS, len(inputs))
    for start in range(0, len(inputs), size):
        rows = inputs[start : start + size]
        yield (
            np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)]),
            len(rows),
        )


def define_flags(values: flags.FlagValues) -> None:
    """The command's flags."""
    flags.DEFINE_string("workdir", "", "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "data_path",
        "",
        "CSV file with a header, the columns that the network was trained on.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", "", "CSV file to write; empty: on the terminal.", flag_values=values
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace the output file.", flag_values=values
    )


if __name__ == "__main__":
    command_line.run_tool(main, __doc__, define_flags)

"""An autograd engine in NumPy: it trains what JAX trains, with every activation."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from parity import stacks
from parity.labs import curves, figures, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.oracle import graph, tensor, train
from parity.report.html import element

COLUMNS = ("train_loss", "test_loss", "test_accuracy")
"""Of metrics.csv, which both write."""
FLOOR = 1e-18
"""Least distance that is drawn."""

Metrics = Mapping[str, np.ndarray]


class Pair(NamedTuple):
    """Two trainings of one network.

    Attributes:
      engine: column -> [epochs], of NumPy.
      jaxnn: the same of JAX.
    """

    engine: Metrics
    jaxnn: Metrics

    def apart(self, column: str) -> np.ndarray:
        """Returns [epochs], the distance of the two."""
        return np.abs(self.engine[column] - self.jaxnn[column])


def measure(bench: Bench) -> Findings:
    """Trains each activation in NumPy and in JAX from the same parameters."""
    found = {
        member.experiment.activation: pair(bench, member.experiment)
        for member in bench.members()
    }
    sections = [_picture(found), _table(found), _graph()]
    return Findings(sections, _claims(found))


def pair(bench: Bench, experiment: Experiment) -> Pair:
    """Trains one network twice."""
    data = bench.data()
    path = bench.workdir / f"{experiment.activation}.safetensors"
    artifacts.write_params(path, stacks.initial_params(experiment, data))
    alike = experiment.replace(init_params=str(path))
    with _float64():
        trained = bench.trained(experiment.activation, alike)
    rows = [row for _, row, _ in train.epochs(alike, data, train.start(alike, data))]
    engine = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    return Pair(engine, trained.metrics)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """Leaves JAX as it was: jaxnn.train sets its precision for the whole process."""
    before = jax.config.read("jax_enable_x64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _picture(found: Mapping[str, Pair]) -> str:
    figure, (losses, apart) = figures.grid(2, size=(5.8, 3.6))
    curves.draw(losses, {n: p.engine["train_loss"][None] for n, p in found.items()})
    for pair in found.values():
        epochs = np.arange(1, len(pair.jaxnn["train_loss"]) + 1)
        losses.plot(epochs, pair.jaxnn["train_loss"], ".", color="0.6", markersize=3)
    distances = {
        name: np.maximum(pair.apart("train_loss"), FLOOR)[None]
        for name, pair in found.items()
    }
    curves.draw(apart, distances)
    losses.set(xlabel="epoch", ylabel="training loss", yscale="log")
    apart.set(xlabel="epoch", ylabel="distance of the losses", yscale="log")
    apart.set_ylim(FLOOR / 2, 1e-12)
    for axes in (losses, apart):
        figures.whole_numbers(axes)
    figures.legend_below(figure, losses, len(found))
    return figures.picture(
        figure,
        "Left: training loss of the engine, and that of JAX as gray dots upon it. "
        f"Right: how far the two are from each other; {FLOOR:g} stands for equal.",
    )


def _table(found: Mapping[str, Pair]) -> str:
    rows = []
    for name, both in found.items():
        last = [both.engine[column][-1] for column in COLUMNS]
        worst = max(both.apart(column).max() for column in COLUMNS)
        rows.append([name, *(tables.number(float(v)) for v in last), f"{worst:.2g}"])
    head = ("activation", "training loss", "test loss", "test accuracy")
    return tables.table((*head, "largest distance from JAX"), rows)


def _graph() -> str:
    nodes = graph.build(graph.EXAMPLE, graph.parse_values(graph.EXAMPLE_AT))
    lines = "\n".join(graph.table(nodes))
    source = pathlib.Path(str(tensor.__file__))
    count = len(source.read_text().splitlines())
    text = f"Its tape is {source.name} of parity/oracle, {count} lines."
    return (
        element("h2", escape(f"What it does with {graph.EXAMPLE}"))
        + element("pre", escape(lines))
        + element("p", escape(text))
    )


def _claims(found: Mapping[str, Pair]) -> list[Claim]:
    def worst(column: str) -> float:
        return max(float(pair.apart(column).max()) for pair in found.values())

    accuracies = [pair.engine["test_accuracy"][-1] for pair in found.values()]
    return [
        Claim(
            "the engine's training losses lie on JAX's: largest distance of any epoch "
            "and activation",
            *(worst("train_loss"), "<", 1e-10),
        ),
        Claim(
            "and its test losses, which jaxnn reports in float32: largest distance",
            *(worst("test_loss"), "<", 1e-6),
        ),
        Claim(
            "it classifies every test sample alike: largest distance of accuracies",
            *(worst("test_accuracy"), "<=", 0.0),
        ),
        Claim(
            "every activation learns: least test accuracy",
            *(float(min(accuracies)), ">=", 0.9, True),
        ),
    ]


LAB = Lab(
    "An autograd engine in NumPy",
    "A tape that remembers how each number came about is all that training needs: in "
    "float64 its curves lie on those of JAX to the last digits. The activations differ "
    "in how they learn, and in that the two programs agree as well.",
    measure,
    reduced=("--grid=activation=tanh,relu", "--epochs=4"),
)

"""Activation playground: one network with every activation."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import diagnosis, models, train_step
from jaxnn.experiment.data.dataset import Dataset
from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

LINEAR = "linear"
MEASURED = {
    "saturated": "saturated, share",
    "dead": "dead units, share",
    "activation_mean": "activation mean",
}
"""Of `--diagnose` -> title."""


def measure(bench: Bench) -> Findings:
    """Trains all activations, looks into their layers, and collapses the linear one."""
    found = runs.split(bench.swept("sweep"), "activation")
    data = bench.data()
    zeros = {name: sparsity(of[0], data) for name, of in found.items()}
    collapse = collapsed(found[LINEAR][0], data)
    sections = [
        _curves(found),
        _layers(found, zeros),
        _table(found, zeros),
        _collapse(collapse),
    ]
    return Findings(sections, _claims(found, zeros, collapse))


def outputs(run: Run, data: Dataset) -> np.ndarray:
    """Returns what a trained network makes of the test split, [samples, outputs]."""
    model = models.build(run.experiment, data.signature)
    network = run.network()
    forward = jax.jit(train_step.forward, static_argnums=(0, 1))
    inputs = np.asarray(data.test_inputs)
    found = forward(run.experiment, model, *network, inputs)
    return np.asarray(found, np.float64)


def sparsity(run: Run, data: Dataset) -> dict[str, float]:
    """Returns hidden layer -> share of its activations that are exactly 0."""
    model = models.build(run.experiment, data.signature)
    layers = run.diagnosed("dead")[0]
    network = run.network()
    inputs = jnp.asarray(np.asarray(data.test_inputs))
    handed = diagnosis.watched(
        lambda: train_step.forward(run.experiment, model, *network, inputs),
        run.experiment,
        layers,
        len(inputs),
    )
    return {
        layer: float(np.mean(np.asarray(values) == 0))
        for layer, (values, _) in handed.items()
        if layer.startswith("hidden")
    }


def collapsed(run: Run, data: Dataset) -> tuple[float, float]:
    """Returns how far a deep linear network is from the one layer that it equals.

    Its matrices are multiplied in float64: x W_0 W_1 ... W_n + the biases moved along.

    Returns:
      Largest difference of outputs over the largest output, and the accuracy of the
      one layer on the test split.
    """
    params = run.network().params
    layers = [f"hidden_{n}" for n in range(len(run.experiment.hidden_sizes))]
    kernel, bias = np.eye(math.prod(data.signature.input_shape)), np.zeros(1)
    for layer in [*layers, "output"]:
        weights = np.float64(params[layer]["kernel"])
        bias = (bias @ weights if bias.size > 1 else 0) + params[layer]["bias"]
        kernel = kernel @ weights
    inputs = np.asarray(data.test_inputs, np.float64).reshape(-1, len(kernel))
    one = inputs @ kernel + bias
    deep = outputs(run, data)
    accuracy = np.mean(one.argmax(axis=1) == data.test_targets.reshape(-1))
    return float(np.abs(one - deep).max() / np.abs(deep).max()), float(accuracy)


def _curves(found: dict[str, list[Run]]) -> str:
    figure, panels = figures.grid(2, size=(6, 3.4))
    columns = {"train_loss": "training loss", "test_accuracy": "test accuracy"}
    for axes, (column, title) in zip(panels, columns.items()):
        curves.draw(axes, {name: runs.curves(of, column) for name, of in found.items()})
        axes.set(title=title, xlabel="epoch")
        figures.whole_numbers(axes)
    panels[0].set_yscale("log")
    figures.legend_below(figure, panels[0], 9)
    return figures.picture(
        figure,
        "Each activation: mean over seeds, and from the least to the largest.",
    )


def _layers(found: dict[str, list[Run]], zeros: dict[str, dict[str, float]]) -> str:
    names, layers = list(found), list(zeros[LINEAR])
    figure, panels = figures.grid(2, 2, size=(5.6, 3.2))
    for axes, (measured, title) in zip(panels, MEASURED.items()):
        values = np.array([last(found[name], measured, layers) for name in names])
        image = figures.heat(figure, axes, values, layers, names)
        axes.set_title(title)
        figure.colorbar(image, ax=axes)
    values = np.array([[zeros[name][layer] for layer in layers] for name in names])
    image = figures.heat(figure, panels[-1], values, layers, names)
    panels[-1].set_title("exact zeros, share")
    figure.colorbar(image, ax=panels[-1])
    return figures.picture(
        figure,
        "Layers of the trained networks (--diagnose, last epoch, mean over seeds); "
        "hatched where an activation has no flat region. Zeros: test split, seed 0.",
    )


def last(of: list[Run], measured: str, layers: list[str]) -> np.ndarray:
    """Returns [layers], a number of the last diagnosis, mean over runs."""
    values = []
    for run in of:
        known, table = run.diagnosed(measured)
        values.append([table[-1, known.index(layer)] for layer in layers])
    return np.mean(values, axis=0)


def _table(found: dict[str, list[Run]], zeros: dict[str, dict[str, float]]) -> str:
    head = (
        *("activation", "training loss", "test accuracy", "saturated", "dead"),
        *("exact zeros", "activation mean"),
    )
    rows = []
    for name, of in found.items():
        layers = list(zeros[name])
        means = [float(last(of, m, layers).mean()) for m in MEASURED]
        row = [
            name,
            tables.spread(runs.kept(of, "train_loss")),
            tables.spread(runs.kept(of, "test_accuracy")),
            tables.number(means[0], 2),
            tables.number(means[1], 2),
            tables.number(float(np.mean(list(zeros[name].values()))), 2),
            tables.number(means[2], 2),
        ]
        rows.append(row)
    return tables.table(head, rows)


def _collapse(collapse: tuple[float, float]) -> str:
    difference, accuracy = collapse
    rows = [
        ["largest difference of outputs, relative", f"{difference:.2g}"],
        ["test accuracy of the one layer", f"{accuracy:.4f}"],
    ]
    head = ("the linear network against the product of its matrices", "")
    return tables.titled("Linear collapse", head, rows)


def _claims(
    found: dict[str, list[Run]],
    zeros: dict[str, dict[str, float]],
    collapse: tuple[float, float],
) -> list[Claim]:
    def mean(name: str) -> float:
        if name not in found:
            return math.nan
        means = last(found[name], "activation_mean", list(zeros[name]))
        return float(np.abs(means).mean())

    def loss(name: str) -> float:
        return runs.mean(found.get(name), "train_loss")

    relu = float(np.mean(list(zeros["relu"].values())))
    return [
        Claim(
            "a deep linear network is one layer to rounding: largest difference of "
            "outputs, relative",
            *(collapse[0], "<", 1e-5),
        ),
        Claim(
            "tanh is centred at zero, the sigmoid is not: mean activation, without "
            "sign, of the sigmoid less tanh's",
            *(mean("sigmoid") - mean("tanh"), ">", 0.2),
            of_full_size=True,
        ),
        Claim(
            "ReLU is sparse: share of its activations that are exactly zero",
            *(relu, ">", 0.3),
        ),
        Claim(
            "what has no slope does not train its layers: training loss of the step "
            "over ReLU's",
            *(loss("step") / loss("relu"), ">", 2.0),
            of_full_size=True,
        ),
    ]


LAB = Lab(
    "Activation playground",
    "The same network with every activation: those with a slope almost everywhere "
    "train soonest, the sigmoid later, and a step, without a slope, trains its last "
    "layer alone. Without any activation the layers collapse into one.",
    measure,
    reduced=(
        "--grid=activation=linear,relu; seed=0",
        "--epochs=4",
        "--hidden_sizes=32",
    ),
)

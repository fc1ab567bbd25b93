"""The perceptron from scratch: Rosenblatt's rule, its boundary, and a smooth unit."""

import base64
import itertools
import pathlib
from html import escape
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.plots import animation
from jaxnn.experiment.results.plots.animation import Frame
from parity.labs import figures, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.report.html import element

SPAN = 0.5
"""How far the weight is moved to each side."""
POINTS = 2001
"""Of the weight on its way; an odd number, so that the trained one is among them."""


class Rule(NamedTuple):
    """What the rule has learned.

    Attributes:
      kernel: [features] float32 weights w.
      bias: float32.
      errors: [epochs] samples that were wrong when their turn came.
    """

    kernel: np.ndarray
    bias: np.float32
    errors: list[int]


class Moved(NamedTuple):
    """One output while one weight moves.

    Attributes:
      weights: [points] the weight.
      step: [points] output of the step, 0 or 1.
      sigmoid: [points] output of the sigmoid.
    """

    weights: np.ndarray
    step: np.ndarray
    sigmoid: np.ndarray


def rosenblatt(inputs: np.ndarray, labels: np.ndarray, order: np.ndarray) -> Rule:
    """Learns by w += (t - step(w x + b)) x, b += t - step(w x + b) (Rosenblatt 1958).

    Args:
      inputs: [samples, features] float32, x.
      labels: [samples] 0 or 1, t.
      order: [epochs, samples] whose turn it is.
    """
    kernel, bias = np.zeros(inputs.shape[1], np.float32), np.float32(0)
    wrong = []
    for epoch in order:
        wrong.append(0)
        for sample in epoch:
            fires = inputs[sample] @ kernel + bias >= 0
            error = np.float32(labels[sample]) - np.float32(fires)
            kernel, bias = kernel + error * inputs[sample], bias + error
            wrong[-1] += int(error != 0)
    return Rule(kernel, bias, wrong)


def order_of(experiment: Experiment, samples: int) -> np.ndarray:
    """Returns [epochs, samples], the order in which both stacks take them."""
    epochs = range(experiment.epochs)
    found = [batches.epoch_batches(experiment, samples, epoch) for epoch in epochs]
    return np.stack(found)[:, :, 0]


def errors_of(frames: list[Frame], epochs: int) -> list[int]:
    """Returns how many updates of each epoch moved the weights."""
    moved = [
        not animation.equal(before, after)
        for before, after in itertools.pairwise(frames)
    ]
    return np.reshape(moved, (epochs, -1)).sum(axis=1).tolist()


def moved(rule: Rule, inputs: np.ndarray) -> Moved:
    """Moves the first weight, and looks at the sample nearest to the boundary."""
    nearest = inputs[np.argmin(np.abs(inputs @ rule.kernel + rule.bias))]
    # Around the weight at which this sample lies on the boundary.
    rest = nearest[1:] @ rule.kernel[1:] + rule.bias
    middle = -rest / nearest[0]
    weights = middle + np.linspace(-SPAN, SPAN, POINTS)
    scores = weights * nearest[0] + rest
    return Moved(weights, (scores >= 0) * 1.0, 1 / (1 + np.exp(-scores)))


def measure(bench: Bench) -> Findings:
    """Learns in NumPy and in JAX, and moves a weight."""
    experiment, data = bench.experiment(), bench.data()
    inputs, labels = np.asarray(data.train_inputs), data.train_targets.reshape(-1)
    rule = rosenblatt(inputs, labels, order_of(experiment, len(inputs)))
    bench.trained("jaxnn", experiment)
    folder = bench.workdir / "jaxnn" / "trace"
    frames = animation.read_frames(Reader(folder))
    errors = errors_of(frames, experiment.epochs)
    found = moved(rule, inputs)
    sections = [
        _boundary(data, folder, bench.workdir / "decision_boundary.gif"),
        _picture(rule, errors, found),
        _table(rule, errors, frames[-1]),
    ]
    return Findings(sections, _claims(rule, errors, frames[-1], found))


def _boundary(data: Dataset, folder: pathlib.Path, path: pathlib.Path) -> str:
    animation.write(data, folder, path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    caption = (
        "The boundary after every update that moved it; the ring marks the sample "
        "whose turn it was."
    )
    image = element("img", src=f"data:image/gif;base64,{encoded}", alt=caption)
    return element("figure", image, element("figcaption", escape(caption)))


def _picture(rule: Rule, errors: list[int], found: Moved) -> str:
    figure, (left, right) = figures.grid(2, size=(5.0, 3.4))
    epochs = np.arange(1, len(errors) + 1)
    for number, (name, of) in enumerate((("NumPy", rule.errors), ("jaxnn", errors))):
        left.plot(epochs, of, label=name, **figures.stroke(number, len(errors)))
    left.set(xlabel="epoch", ylabel="errors")
    left.legend(frameon=False)
    figures.whole_numbers(left)
    for number, (name, of) in enumerate(
        (("step", found.step), ("sigmoid", found.sigmoid))
    ):
        right.plot(found.weights, of, label=name, **figures.stroke(number, POINTS))
    right.set(xlabel="first weight", ylabel="output for one sample")
    right.legend(frameon=False)
    return figures.picture(
        figure,
        "Left: samples that were wrong, by epoch, of both programs. Right: the output "
        "for the sample nearest to the boundary while one weight moves past it.",
    )


def _table(rule: Rule, errors: list[int], last: Frame) -> str:
    rows = []
    for name, kernel, bias, of in (
        ("NumPy", rule.kernel, rule.bias, rule.errors),
        ("jaxnn", *_unit(last), errors),
    ):
        weights = ", ".join(f"{weight:.6f}" for weight in kernel)
        rows.append([name, weights, f"{bias:g}", ", ".join(map(str, of))])
    head = ("", "weights", "bias", "errors by epoch")
    return tables.table(head, rows)


def _unit(frame: Frame) -> tuple[np.ndarray, float]:
    """Returns weights and bias of jaxnn's only unit."""
    return frame.params["output/kernel"][:, 0], frame.params["output/bias"][0]


def _claims(rule: Rule, errors: list[int], last: Frame, found: Moved) -> list[Claim]:
    kernel, bias = _unit(last)
    apart = np.abs([*(kernel - rule.kernel), bias - rule.bias])
    jumps = {name: _largest_jump(getattr(found, name)) for name in found._fields[1:]}
    return [
        Claim(
            "NumPy and jaxnn err on as many samples in every epoch: largest difference",
            *(float(np.max(np.abs(np.subtract(rule.errors, errors)))), "<=", 0.0),
        ),
        Claim(
            "and learn the same line: largest difference of a weight or the bias",
            *(float(apart.max()), "<", 1e-5),
        ),
        Claim(
            "the rule ends: errors of the last epoch", *(float(errors[-1]), "<=", 0.0)
        ),
        Claim(
            f"a weight that moves by {2 * SPAN / (POINTS - 1):g} flips the step's "
            "output: its largest jump",
            *(jumps["step"], ">=", 1.0),
        ),
        Claim(
            "the sigmoid's output moves by as little: its largest jump",
            *(jumps["sigmoid"], "<", 0.01),
        ),
        Claim(
            "but it does move, so that there is a slope to follow: least jump",
            *(float(np.abs(np.diff(found.sigmoid)).min()), ">", 0.0),
        ),
    ]


def _largest_jump(values: np.ndarray) -> float:
    return float(np.abs(np.diff(values)).max())


LAB = Lab(
    "A perceptron from scratch",
    "Rosenblatt's rule in a few lines of NumPy errs on the same samples as jaxnn and "
    "draws the same line between setosa and the other irises. Its step gives no hint "
    "which way a weight should go: a small change flips one output or does nothing, "
    "where a sigmoid moves a little.",
    measure,
    reduced=("--epochs=3",),
)

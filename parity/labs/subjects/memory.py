"""Where memory goes: weights, gradients, optimizer state, activations; and ZeRO."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.describe import __main__ as describe
from jaxnn.describe import abstract_step, layer_table, report, zero
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.describe.layer_table import Traced
from jaxnn.describe.zero import ModelStates
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.flags import command_line
from parity.labs import figures, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab

RESNET_50 = "launch/describe/resnet50.flags"
DIGITS = "launch/experiments/digits.flags"
FLAGFILES = (
    "launch/experiments/breast_cancer.flags",
    DIGITS,
    "launch/experiments/cnn_digits.flags",
    "launch/experiments/resnet_digits.flags",
    "launch/experiments/lstm_sine.flags",
    "launch/experiments/transformer_text.flags",
    RESNET_50,
)
PRECISIONS = ("fp32", "fp16")
OPTIMIZERS = ("sgd", "momentum", "adam")
RANKS = tuple(2**power for power in range(11))
"""Of the curves of ZeRO."""
SHOWN_RANKS = 64
"""Of the table and of the claims, as in the paper's figure 1."""
HATCHES = ("", "//", "..", "xx")
"""Of the parts of a bar, for who sees no colour."""


class Described(NamedTuple):
    """A network before anything is allocated.

    Attributes:
      step: its training step in shapes.
      traced: its layers and FLOPs.
    """

    step: AbstractStep
    traced: Traced

    @property
    def states(self) -> ModelStates:
        """Bytes of weights, gradients and what the optimizer keeps."""
        return zero.undivided(self.step)

    @property
    def kept(self) -> int:
        """Bytes of activations that wait for the backward pass."""
        return sum(self.traced.kept.values())

    @property
    def backward_ratio(self) -> float:
        """FLOPs of the backward pass over those of the forward pass."""
        return self.traced.gradient_flops / self.traced.forward_flops - 1


Found = Mapping[str, Described]


def measure(bench: Bench) -> Findings:
    """Describes the networks; nothing is trained."""
    files = (DIGITS, RESNET_50) if bench.is_reduced else FLAGFILES
    found = {name_of(path): described(path) for path in files}
    optimizers = {
        (optimizer, precision): zero.undivided(
            built(DIGITS, f"--optimizer={optimizer}", f"--precision={precision}")
        )
        for optimizer in OPTIMIZERS
        for precision in PRECISIONS
    }
    whole = zero.undivided(built(RESNET_50, "--optimizer=adam"))
    sections = [
        _bars(found),
        _networks(found),
        _shapes(found[name_of(DIGITS)]),
        _optimizers(optimizers),
        _stages(whole),
        _ranks(whole),
    ]
    return Findings(sections, _claims(found, optimizers, whole))


def name_of(path: str) -> str:
    """Returns what a flagfile describes: "launch/.../digits.flags" -> "digits"."""
    return path.rpartition("/")[2].removesuffix(".flags")


def built(path: str, *more: str) -> AbstractStep:
    """Returns the training step of a flagfile in shapes."""
    argv = ["labs", f"--flagfile={path}", *more]
    experiment, values = command_line.parse(argv, "fp32", describe.define_more)
    return abstract_step.build(experiment, describe.signature(experiment, values))


def described(path: str) -> Described:
    """Returns the description of a flagfile's network."""
    step = built(path)
    return Described(step, layer_table.trace(step))


def _bars(found: Found) -> str:
    figure, (axes,) = figures.grid(1, size=(8.5, 0.55 * len(found) + 1.4))
    parts = ("weights", "gradients", "optimizer", "activations kept")
    sizes = np.array([[*d.states, d.kept] for d in found.values()], np.float64)
    shares = sizes / sizes.sum(axis=1, keepdims=True)
    left = np.zeros(len(found))
    for number, part in enumerate(parts):
        style: dict[str, Any] = {
            "color": f"{0.35 + 0.2 * number:.2f}",
            "hatch": HATCHES[number],
        }
        width = shares[:, number]
        axes.barh(list(found), width, left=left, label=part, edgecolor="white", **style)
        left += width
    axes.invert_yaxis()
    axes.set(xlabel="share of the memory of a training step", xlim=(0, 1))
    figures.legend_below(figure, axes, len(parts))
    return figures.picture(
        figure,
        "What a training step holds, from shapes: small dense networks hold weights "
        "and what belongs to them, convolutions and sequences hold activations.",
    )


def _networks(found: Found) -> str:
    rows = []
    for name, each in found.items():
        experiment = each.step.experiment
        states = each.states
        rows.append(
            [
                name,
                f"{experiment.precision}, {experiment.optimizer}",
                str(len(each.step.microbatch.weights)),
                f"{sum(layer.num_params for layer in each.traced.layers):,}",
                report.size(states.weights),
                f"{states.optimizer / states.weights:g}",
                report.size(each.kept),
                f"{each.kept / states.total:.2f}",
                f"{each.backward_ratio:.2f}",
            ]
        )
    head = (
        *("network", "training", "rows", "parameters", "weights"),
        *("optimizer / weights", "activations kept", "kept / all the others"),
        "backward / forward FLOPs",
    )
    return tables.titled("Networks", head, rows, texts=2)


def _shapes(each: Described) -> str:
    layers = {layer.name: layer for layer in each.traced.layers}
    rows = []
    for name, array in flatten(each.step.state.params).items():
        output = layers[name.rpartition("/")[0]].output
        made = "x".join(map(str, output.shape)) if output else "-"
        rows.append([name, "x".join(map(str, array.shape)), f"{array.size:,}", made])
    head = ("parameter", "shape", "numbers", "output of its layer")
    return tables.titled("Kernels and biases of digits", head, rows)


def _optimizers(found: Mapping[tuple[str, str], ModelStates]) -> str:
    rows = []
    for (optimizer, precision), states in found.items():
        ratios = [states.optimizer / states.weights, states.total / states.weights]
        cells = [report.size(size) for size in states]
        rows.append([optimizer, precision, *cells, *(f"{r:g}" for r in ratios)])
    head = ("optimizer", "precision", "weights", "gradients", "optimizer")
    head += ("optimizer / weights", "all / weights")
    return tables.titled("Optimizers of digits", head, rows, texts=2)


def _stages(whole: ModelStates) -> str:
    figure, (axes,) = figures.grid(1, size=(7.0, 3.6))
    for stage in zero.STAGES:
        totals = [zero.on_a_rank(whole, stage, ranks).total / 1e6 for ranks in RANKS]
        style = figures.stroke(stage, len(RANKS))
        axes.plot(RANKS, totals, label=f"stage {stage}", **style)
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="MB a rank")
    axes.set_xticks(RANKS, [f"{ranks:,}" for ranks in RANKS])
    figures.legend_below(figure, axes, len(zero.STAGES))
    return figures.picture(
        figure,
        "Weights, gradients and optimizer state of ResNet-50 under FP16 Adam on each "
        "rank, by ZeRO stage: what is not divided stays.",
    )


def _ranks(whole: ModelStates) -> str:
    per_parameter = 2 / whole.weights
    rows = []
    for stage in zero.STAGES:
        held = zero.on_a_rank(whole, stage, SHOWN_RANKS)
        each = [f"{size * per_parameter:.3g}" for size in (*held, held.total)]
        rows.append([str(stage), *each, f"{held.total / whole.total:.2%}"])
    head = ("ZeRO stage", "weights", "gradients", "optimizer", "all", "of stage 0")
    title = f"Bytes a parameter on each of {SHOWN_RANKS} ranks, FP16, Adam"
    return tables.titled(title, head, rows)


def _claims(
    found: Found,
    optimizers: Mapping[tuple[str, str], ModelStates],
    whole: ModelStates,
) -> list[Claim]:
    resnet = found[name_of(RESNET_50)]
    ratios = [each.backward_ratio for each in found.values()]
    adam = {p: optimizers["adam", p] for p in PRECISIONS}
    shares = [
        zero.on_a_rank(whole, stage, SHOWN_RANKS).total / whole.total
        for stage in zero.STAGES
    ]
    return [
        Claim(
            "the backward pass does about twice the forward pass: distance of "
            "ResNet-50's ratio from 2",
            *(abs(resnet.backward_ratio - 2), "<", 0.1),
        ),
        Claim(
            "the smallest ratio of any network; the first layer needs no gradient of "
            "its input, which counts where there are few",
            *(min(ratios), ">", 1.0),
        ),
        Claim(
            "ResNet-50 in FP16 at batch 256 is activations: their share of the memory",
            *(resnet.kept / (resnet.kept + resnet.states.total), ">", 0.8),
        ),
        Claim(
            "Adam keeps twice the weights in fp32: distance of the ratio from 2",
            *(abs(adam["fp32"].optimizer / adam["fp32"].weights - 2), "<", 1e-9),
        ),
        Claim(
            "and, with masters, six times the weights in FP16: distance from 6",
            *(abs(adam["fp16"].optimizer / adam["fp16"].weights - 6), "<", 1e-9),
        ),
        Claim(
            f"ZeRO 1 on {SHOWN_RANKS} ranks leaves little above the 4 of 16 bytes "
            "that it does not divide: share of stage 0",
            *(shares[1], "<", 0.27),
        ),
        Claim(
            "ZeRO 3 divides all: its share times the ranks",
            *(shares[3] * SHOWN_RANKS, "<", 1.001),
        ),
    ]


LAB = Lab(
    "Where memory goes",
    "Beside its weights a network in training holds gradients, two to six times the "
    "weights for Adam, and activations that wait for the backward pass, which does "
    "about twice the work of the forward pass. ZeRO divides the first three among "
    "ranks, a stage each, and leaves the activations to the rows of each rank.",
    measure,
)

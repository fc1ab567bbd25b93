"""Vanishing and exploding gradients: their norm by layer, at the start."""

import re
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run
from parity.oracle import models
from parity.oracle.step import gradients

INITIALIZERS = {
    "lecun_normal": "LeCun",
    "glorot_normal": "Xavier",
    "he_normal": "He",
    "orthogonal": "orthogonal",
}
KINDS = {
    (False, "none"): "plain",
    (True, "none"): "residual",
    (False, "layer"): "layer norm",
    (True, "layer"): "residual, layer norm",
}
"""(--residual, --normalization) -> name."""
ROWS = 128
"""Samples of the batch whose gradient is taken."""
FLOOR = 1e-30
"""Least norm that is drawn."""
DEPTH = 30
"""Hidden layers of the networks of the claims."""
TRAINED_KINDS = ("plain", "residual, layer norm")
TRAINED = 15
"""Hidden layers of those that are trained; to compile more takes minutes."""


class Start(NamedTuple):
    """A network before its first step.

    Attributes:
      experiment: it.
      norms: [hidden layers] Euclidean norm of the gradient of each kernel.
    """

    experiment: Experiment
    norms: np.ndarray

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Kind, activation, initializer and depth."""
        e = self.experiment
        kind = KINDS[e.residual, e.normalization]
        return kind, e.activation, e.initializer, len(self.norms)

    @property
    def ratio(self) -> float:
        """Gradient of the first hidden layer over that of the last."""
        return float(self.norms[0] / self.norms[-1])


def start(experiment: Experiment, data: Dataset) -> Start:
    """Returns the gradients of the first step, in NumPy float64: no compiler takes a
    second for each of many networks, and nothing underflows.

    Args:
      experiment: network and loss.
      data: whose first training rows are the batch.
    """
    whole = experiment.replace(batch_size=ROWS, accumulation_steps=1)
    params, batch_stats = models.initial(whole, data.signature)
    rows = (data.train_inputs[:ROWS], data.train_targets[:ROWS])
    found = gradients(whole, data.signature, params, batch_stats, *rows, step=0)
    layers = range(len(experiment.hidden_sizes))
    kernels = [found[f"grads/hidden_{layer}/kernel"] for layer in layers]
    return Start(experiment, np.array([np.linalg.norm(k) for k in kernels]))


def measure(bench: Bench) -> Findings:
    """Takes the gradients of all networks of --grid, and trains the deep sigmoids."""
    data = bench.data()
    starts = [start(m.experiment, data) for m in bench.members()]
    found = {each.key: each for each in starts}
    kinds = ("residual, layer norm",) if bench.is_reduced else TRAINED_KINDS
    trained = {name: _trained(bench, name) for name in kinds}
    sections = [
        _first_layers(found),
        _maps(found, "plain"),
        _maps(found, "residual, layer norm"),
        _training(trained),
        _table(found),
    ]
    return Findings(sections, _claims(found, trained))


def _trained(bench: Bench, kind: str) -> list[Run]:
    (residual, norm), *_ = (key for key, name in KINDS.items() if name == kind)
    depth = 2 if bench.is_reduced else TRAINED
    return bench.swept(
        kind,
        f"--hidden_sizes={','.join(['32'] * depth)}",
        f"--residual={str(residual).lower()}",
        f"--normalization={norm}",
        "--activation=sigmoid",
        "--diagnose",
        "--grid=seed=0" if bench.is_reduced else "--grid=seed=0..2",
    )


def _chosen(found: dict, place: int) -> list[Any]:
    return list(dict.fromkeys(key[place] for key in found))


def _first_layers(found: dict[Any, Start]) -> str:
    kinds, activations, initializers, depths = (_chosen(found, n) for n in range(4))
    figure, panels = figures.grid(
        len(activations), len(kinds), (4.2, 2.5), sharex=True, sharey=True
    )
    panel = iter(panels)
    for kind in kinds:
        for activation in activations:
            axes = next(panel)
            for number, name in enumerate(initializers):
                known = [d for d in depths if (kind, activation, name, d) in found]
                norms = [found[kind, activation, name, d].norms[0] for d in known]
                style = figures.stroke(number, 1)
                label = INITIALIZERS[name]
                axes.plot(known, np.maximum(norms, FLOOR), label=label, **style)
            axes.set(title=f"{activation}, {kind}", yscale="log")
    for axes in panels[-len(activations) :]:
        axes.set_xlabel("hidden layers")
    for axes in panels[:: len(activations)]:
        axes.set_ylabel("gradient norm")
    figures.legend_below(figure, panels[0], len(initializers))
    return figures.picture(
        figure,
        "Gradient norm of the first hidden layer by depth, before the first step: a "
        "line that falls vanishes, one that rises explodes.",
    )


def _maps(found: dict[Any, Start], kind: str) -> str:
    _, activations, initializers, depths = (_chosen(found, n) for n in range(4))
    # Of Xavier's start where it is there, as usual for sigmoid and tanh.
    named = "glorot_normal" if "glorot_normal" in initializers else initializers[0]
    figure, panels = figures.grid(len(activations), size=(4.1, 3.4))
    for axes, activation in zip(panels, activations):
        values = np.full((max(depths), len(depths)), np.nan)
        for column, depth in enumerate(depths):
            values[:depth, column] = found[kind, activation, named, depth].norms
        norm = LogNorm(max(np.nanmin(values), FLOOR), np.nanmax(values))
        rows = [str(row + 1) for row in range(len(values))]
        shades = np.maximum(values, FLOOR)
        image = figures.heat(figure, axes, shades, [*map(str, depths)], rows, norm)
        axes.set(title=f"{activation}, {kind}", xlabel="hidden layers")
        figure.colorbar(image, ax=axes)
    panels[0].set_ylabel("layer")
    return figures.picture(
        figure,
        f"Gradient norm by layer (down) and depth (across), start "
        f"{INITIALIZERS[named]}; hatched where there is no layer.",
    )


def _training(trained: dict[str, list[Run]]) -> str:
    figure, panels = figures.grid(2, size=(5.4, 3.2))
    curves.draw(
        panels[0], {k: runs.curves(of, "train_loss") for k, of in trained.items()}
    )
    for number, (kind, of) in enumerate(trained.items()):
        layers, norms = of[0].diagnosed("gradient_norm")
        hidden = [place for place, name in enumerate(layers) if "hidden" in name]
        order = sorted(hidden, key=lambda p: int(re.sub(r"\D", "", layers[p])))
        style = figures.stroke(number, len(order))
        panels[1].plot(range(1, len(order) + 1), norms[0, order], label=kind, **style)
    (first, *_), *_ = trained.values()
    depth = len(first.experiment.hidden_sizes)
    panels[0].set(title="training loss", xlabel="epoch")
    panels[1].set(title="gradient norm, first epoch", xlabel="layer", yscale="log")
    figures.legend_below(figure, panels[0], 2)
    return figures.picture(
        figure,
        f"Sigmoid networks of {depth} hidden layers in training (jaxnn, --diagnose).",
    )


def _table(found: dict[Any, Start]) -> str:
    kinds, activations, initializers, depths = (_chosen(found, n) for n in range(4))
    rows = [
        [kind, activation, INITIALIZERS[name]]
        + [tables.number(found[kind, activation, name, d].ratio, 2) for d in depths]
        for kind in kinds
        for activation in activations
        for name in initializers
    ]
    head = ["kind", "activation", "start", *(f"{depth} layers" for depth in depths)]
    caption = "Gradient norm of the first hidden layer over that of the last"
    return tables.titled(caption, head, rows, texts=3)


def _claims(found: dict[Any, Start], trained: dict[str, list[Run]]) -> list[Claim]:
    def ratio(kind: str, activation: str, initializer: str) -> float:
        known = found.get((kind, activation, initializer, DEPTH))
        return known.ratio if known else float("nan")

    def first(initializer: str) -> float:
        known = found.get(("plain", "relu", initializer, DEPTH))
        return float(known.norms[0]) if known else float("nan")

    def loss(kind: str) -> float:
        return runs.mean(trained.get(kind), "train_loss")

    return [
        Claim(
            f"through {DEPTH} plain sigmoid layers the gradient vanishes: first layer "
            "over last, start Xavier",
            *(ratio("plain", "sigmoid", "glorot_normal"), "<", 1e-6),
        ),
        Claim(
            "with residual connections and layer norm it does not: the same ratio",
            *(ratio("residual, layer norm", "sigmoid", "glorot_normal"), ">", 1e-2),
        ),
        Claim(
            "ReLU halves what passes, and He's start makes up for it: gradient of the "
            "first plain layer with He's start over that with LeCun's",
            *(first("he_normal") / first("lecun_normal"), ">", 1e2),
        ),
        Claim(
            "an orthogonal start keeps it through plain tanh layers",
            *(ratio("plain", "tanh", "orthogonal"), ">", 1e-2),
        ),
        Claim(
            "with residual connections and layer norm a deep sigmoid network learns, "
            "the plain one does not: training loss of the one over the other's",
            *(loss("residual, layer norm") / loss("plain"), "<", 0.2),
            of_full_size=True,
        ),
    ]


LAB = Lab(
    "Vanishing and exploding gradients",
    "A backward pass multiplies one factor a layer: below one the gradient vanishes "
    "towards the first layers, above one it explodes, exponentially in the depth. A "
    "start that fits the activation puts the factor near one; residual connections "
    "with normalization keep it there.",
    measure,
    reduced=(
        "--grid=hidden_sizes=32,32|" + ",".join(["32"] * DEPTH) + "; "
        "activation=sigmoid,relu,tanh; "
        "initializer=glorot_normal,he_normal,lecun_normal,orthogonal; "
        "residual=false,true; normalization=none,layer",
        "--epochs=1",
    ),
)

"""Momentum and minima: the paths of optimizers on surfaces of two parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS
from parity.labs import figures, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab

POINTS = 201
"""Of a side of the drawn surface."""
CLOSE = 1e-3
"""Height above the deepest point at which a path has arrived."""
FLOOR = 1e-7
"""Least height that is drawn; below it float32 ends."""
SHOWN = 150
"""Steps of a path that are drawn."""


class Surface(NamedTuple):
    """A loss of two parameters.

    Attributes:
      title: what it is.
      loss: [2, ...] -> [...], of NumPy's arrays or JAX's.
      start: [2], where all paths begin.
      span: least and largest x, then y, that are drawn.
      deepest: [2], its lowest point.
      rates: optimizer -> its learning rate here.
    """

    title: str
    loss: Callable[[Any], Any]
    start: tuple[float, float]
    span: tuple[float, float, float, float]
    deepest: tuple[float, float]
    rates: dict[str, float]


def ravine(w: Any) -> Any:
    """x^2 / 2 + 50 y^2: a hundred times as steep across as along."""
    return w[0] ** 2 / 2 + 50 * w[1] ** 2


def two_valleys(w: Any) -> Any:
    """(x^2 - 1)^2 + 0.6 x + y^2: a shallow valley at x near 1, a deep one near -1."""
    return (w[0] ** 2 - 1) ** 2 + 0.6 * w[0] + w[1] ** 2


def banana(w: Any) -> Any:
    """(1 - x)^2 + 100 (y - x^2)^2 (Rosenbrock 1960)."""
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


RATES = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01, "adam": 0.2, "rmsprop": 0.05}
SURFACES = {
    "ravine": Surface(
        "a ravine", ravine, (-9.0, 0.9), (-10, 4, -1.6, 1.6), (0, 0), RATES
    ),
    "valleys": Surface(
        "two valleys",
        two_valleys,
        (1.9, 0.8),
        (-2, 2.2, -1.2, 1.2),
        (float(np.roots([4, 0, -4, 0.6]).min()), 0),
        RATES | {"sgd": 0.02, "momentum": 0.02, "nesterov": 0.02, "adam": 0.1},
    ),
    "banana": Surface(
        "Rosenbrock's valley",
        banana,
        (-1.2, 1.0),
        (-1.8, 1.6, -0.8, 2.2),
        (1, 1),
        RATES
        | {"sgd": 0.001, "momentum": 0.001, "nesterov": 0.001, "adam": 0.05}
        | {"rmsprop": 0.01},
    ),
}


def path(experiment: Experiment, surface: Surface, steps: int) -> np.ndarray:
    """Returns [steps + 1, 2], the points that an optimizer visits.

    Args:
      experiment: names the optimizer; w <- w - learning_rate d, as in training.
      surface: on which.
      steps: how many.
    """
    optimizer = OPTIMIZERS[experiment.optimizer](experiment).transform
    rate = jnp.float32(surface.rates[experiment.optimizer])

    def step(carry, _):
        w, state = carry
        grads = {"kernel": jax.grad(surface.loss)(w["kernel"])}
        direction, state = optimizer.update(grads, state, w)
        w = jax.tree.map(lambda p, d: p - rate * d, w, direction)
        return (w, state), w["kernel"]

    start = {"kernel": jnp.array(surface.start, jnp.float32)}
    carry = (start, optimizer.init(start))
    _, points = jax.jit(lambda c: jax.lax.scan(step, c, None, steps))(carry)
    return np.concatenate([[surface.start], np.asarray(points, np.float64)])


def heights(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Returns how far above the deepest point some points lie: [n, 2] -> [n]."""
    return surface.loss(points.T) - surface.loss(np.array(surface.deepest, np.float64))


def steps_to(surface: Surface, points: np.ndarray) -> float:
    """Returns the first step from which a path stays `CLOSE` to the bottom; or inf."""
    far = np.flatnonzero(~(heights(surface, points) < CLOSE))
    if not len(far):
        return 0.0
    return float(far[-1] + 1) if far[-1] + 1 < len(points) else np.inf


def measure(bench: Bench) -> Findings:
    """Walks every optimizer down every surface."""
    steps = 500 if bench.is_reduced else 5000
    named = {m.experiment.optimizer: m.experiment for m in bench.members()}
    paths = {
        (name, optimizer): path(experiment, surface, steps)
        for name, surface in SURFACES.items()
        for optimizer, experiment in named.items()
    }
    found = {key: steps_to(SURFACES[key[0]], points) for key, points in paths.items()}
    sections = [_pictures(paths, list(named)), _descents(paths, list(named))]
    return Findings([*sections, _table(found, paths)], _claims(found, paths))


def _pictures(paths: dict, optimizers: list[str]) -> str:
    figure, panels = figures.grid(len(SURFACES), size=(4.1, 3.5))
    for axes, (name, surface) in zip(panels, SURFACES.items()):
        _contours(axes, surface)
        for number, optimizer in enumerate(optimizers):
            points = paths[name, optimizer][: SHOWN + 1]
            style = stroke(number)
            axes.plot(*points.T, label=optimizer, **style)
        axes.plot(*surface.deepest, "k+", markersize=14, markeredgewidth=2)
        axes.set(title=surface.title, xlabel="x", ylabel="y")
    figures.legend_below(figure, panels[0], len(optimizers))
    return figures.picture(
        figure,
        f"Paths of {SHOWN} steps from the same start; the cross is the deepest point, "
        "the lines are levels of the loss.",
    )


def stroke(number: int) -> dict[str, Any]:
    """Returns how to draw a path, its markers equally far from each other on paper."""
    return figures.stroke(number, 1) | {"markevery": (0.01 + 0.02 * number, 0.15)}


def _contours(axes: Axes, surface: Surface) -> None:
    left, right, low, high = surface.span
    x, y = np.meshgrid(np.linspace(left, right, POINTS), np.linspace(low, high, POINTS))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    z = heights(surface, points).reshape(x.shape)
    # As many levels near the bottom as far above it.
    levels = np.geomspace(max(z.min(), 1e-2), z.max(), 14)
    axes.contour(x, y, z, levels, colors="0.75", linewidths=0.8)
    axes.set(xlim=(left, right), ylim=(low, high))


def _descents(paths: dict, optimizers: list[str]) -> str:
    figure, panels = figures.grid(len(SURFACES), size=(4.1, 2.8))
    for axes, (name, surface) in zip(panels, SURFACES.items()):
        for number, optimizer in enumerate(optimizers):
            z = heights(surface, paths[name, optimizer])
            style = stroke(number)
            steps = np.arange(1, len(z) + 1)
            axes.plot(steps, np.maximum(z, FLOOR), label=optimizer, **style)
        axes.axhline(CLOSE, color="0.5", linewidth=0.8)
        axes.set(title=surface.title, xlabel="step, from 1", xscale="log", yscale="log")
    panels[0].set_ylabel("loss above the deepest")
    figures.legend_below(figure, panels[0], len(optimizers))
    return figures.picture(
        figure, f"Height above the deepest point; arrived is below {CLOSE:g}, the line."
    )


def _table(found: dict, paths: dict) -> str:
    rows = []
    for (name, optimizer), steps in found.items():
        surface = SURFACES[name]
        x, y = paths[name, optimizer][-1]
        height = heights(surface, paths[name, optimizer][-1:])[0]
        arrived = "never" if np.isinf(steps) else f"{steps:g}"
        rate = f"{surface.rates[optimizer]:g}"
        end = f"({x:.3f}, {y:.3f})"
        rows.append([surface.title, optimizer, rate, arrived, end, f"{height:.2g}"])
    head = ("surface", "optimizer", "rate", "steps to arrive", "end", "loss above")
    return tables.table(head, rows, texts=2)


def _claims(found: dict, paths: dict) -> list[Claim]:
    ravine_ratio = found["ravine", "sgd"] / found["ravine", "momentum"]
    return [
        Claim(
            "along a ravine momentum arrives sooner than SGD at the same rate: steps "
            "of SGD over steps of momentum",
            *(ravine_ratio, ">=", 2.0),
        ),
        Claim(
            "SGD stays in the shallow valley on its way: x where it ends",
            *(float(paths["valleys", "sgd"][-1, 0]), ">", 0.5),
        ),
        Claim(
            "momentum from the same start at the same rate rolls through it into the "
            "deep one: x where it ends",
            *(float(paths["valleys", "momentum"][-1, 0]), "<", -0.5),
        ),
    ]


LAB = Lab(
    "Momentum and minima",
    "Plain gradient descent crawls along a ravine whose walls bound its rate, and "
    "stops in the first valley that it meets. Momentum adds up what the steps agree "
    "on: it is faster along the ravine and carries over a low barrier, at the price of "
    "overshooting.",
    measure,
)

"""Points of the plane that one line does not separate: what hidden layers are for.

`--num_samples` are drawn for training and `--test_fraction` of that number on top for
testing, each split with as many of each class as division allows. `--noise` is the
standard deviation of what is added to both coordinates.
"""

from collections.abc import Callable

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.sources import both_splits, labels
from jaxnn.experiment.flags.config import Experiment

Points = tuple[np.ndarray, np.ndarray]
"""[samples, 2] float64 and [samples] classes."""

Draw = Callable[[int, float, np.random.Generator], Points]
"""(samples, noise, generator) -> points."""

INNER = 0.5
"""Radius of the inner circle; the outer's is 1."""
TURNS = 1.5
"""Of each spiral."""
BYTES = 2 * 8 + 2 * 4 + 8
"""Of a point in float64 and float32, and its class."""


def circles(count: int, noise: float, rng: np.random.Generator) -> Points:
    """A circle around another (scikit-learn's make_circles)."""
    # Importing scikit-learn takes a second.
    from sklearn.datasets import make_circles

    drawn = make_circles(count, noise=noise, random_state=_state(rng), factor=INNER)
    return np.asarray(drawn[0]), np.asarray(drawn[1])


def moons(count: int, noise: float, rng: np.random.Generator) -> Points:
    """Two half circles that reach into each other (scikit-learn's make_moons)."""
    from sklearn.datasets import make_moons

    drawn = make_moons(count, noise=noise, random_state=_state(rng))
    return np.asarray(drawn[0]), np.asarray(drawn[1])


def spirals(count: int, noise: float, rng: np.random.Generator) -> Points:
    """Two spirals of `TURNS` turns from the centre to radius 1, half a turn apart.

    After Lang & Witbrock 1988. Points are uniform in the angle.
    """
    classes = np.arange(count) % 2
    along = rng.random(count)
    angle = 2 * np.pi * TURNS * along + np.pi * classes
    points = np.stack([along * np.cos(angle), along * np.sin(angle)], axis=1)
    return points + noise * rng.standard_normal((count, 2)), classes


def xor_cloud(count: int, noise: float, rng: np.random.Generator) -> Points:
    """Uniform points of [-1, 1]^2, whose class is whether the signs differ.

    Noise is added afterwards, which takes some of them across the axes.
    """
    classes = np.arange(count) % 2
    points = rng.uniform(-1, 1, (count, 2))
    # The second sign follows the first, so that both classes are as frequent.
    signs = np.where(classes == 1, -1, 1) * np.sign(points[:, 0])
    points[:, 1] = signs * np.abs(points[:, 1])
    return points + noise * rng.standard_normal((count, 2)), classes


def source(draw: Draw) -> Callable[[Experiment], Dataset]:
    """Returns the data set of points that a function draws.

    The data set raises UserError if memory does not hold it, or folds are asked for.
    """

    def dataset(experiment: Experiment) -> Dataset:
        count = both_splits.count(experiment, "--num_samples", BYTES)
        first = experiment.num_samples
        rng = np.random.default_rng(experiment.split_seed)
        parts = [draw(size, experiment.noise, rng) for size in (first, count - first)]
        points, classes = (np.concatenate(both) for both in zip(*parts))
        found = labels.of_classes(classes, ("0", "1"))
        return both_splits.split(
            experiment,
            points.astype(np.float32),
            found.targets,
            found.task,
            class_names=found.class_names,
            feature_names=("x0", "x1"),
        )

    return dataset


def _state(rng: np.random.Generator) -> int:
    """Returns a seed for scikit-learn, which knows no Generator."""
    return int(rng.integers(2**31))


PLAYGROUND = {
    "circles": source(circles),
    "moons": source(moons),
    "spirals": source(spirals),
    "xor_cloud": source(xor_cloud),
}
"""Data sets by name."""

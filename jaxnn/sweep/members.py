"""The networks of a sweep: each a setting of the axes, and a fold of the data."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import consistency
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import axes, flag_roles
from jaxnn.sweep.axes import Axis, Interval

DIGITS = 4
"""Of a number that is drawn: enough to tell them apart, few enough to read."""
REPEATS = ("seed", "fold")
"""Axes that repeat a setting rather than change it."""


class Member(NamedTuple):
    """One network.

    Attributes:
      number: index in the sweep.
      settings: flag -> value, of the axes; with `--num_folds` of "fold" too.
      experiment: what it is trained by; `jaxnn.train` would train the same.
    """

    number: int
    settings: dict[str, Any]
    experiment: Experiment

    @property
    def setting(self) -> tuple[tuple[str, Any], ...]:
        """The settings without those that only repeat it."""
        return tuple(
            (flag, value)
            for flag, value in self.settings.items()
            if flag not in REPEATS
        )


def make(
    base: Experiment,
    grid: Sequence[Axis],
    draws: int = 0,
    random_seed: int = 0,
    most: int = 1000,
) -> list[Member]:
    """Returns the members of a sweep.

    Args:
      base: experiment whose flags vary.
      grid: the axes.
      draws: settings to draw at random; 0: all of the grid.
      random_seed: seed of the draws.
      most: members that are allowed.

    Raises:
      UserError: there are more, an axis is at odds with the folds, or settings
        contradict each other.
    """
    _check_folds(base, grid)
    folds = max(base.num_folds, 1)
    count = (draws or axes.size(grid)) * folds
    if count > most:
        of_folds = f", {folds} folds of each setting," if folds > 1 else ""
        raise UserError(
            f"--max_members: the sweep has {count} members{of_folds} and {most} are "
            "allowed; raise it or shorten --grid"
        )
    found = _drawn(grid, draws, random_seed) if draws else _all(grid)
    if base.num_folds:
        found = [{**each, "fold": fold} for each in found for fold in range(folds)]
    return [_member(base, *numbered) for numbered in enumerate(found)]


def _check_folds(base: Experiment, grid: Sequence[Axis]) -> None:
    for axis in grid:
        if base.num_folds and axis.flag in flag_roles.OF_THE_SPLIT:
            raise UserError(
                f"--grid: {axis.flag} changes the split of the data, and --num_folds="
                f"{base.num_folds} is to compare settings on equal folds; leave out "
                "one of them"
            )


def _member(base: Experiment, number: int, settings: dict[str, Any]) -> Member:
    experiment = base.replace(**settings)
    try:
        consistency.check(experiment)
    except UserError as error:
        raise UserError(f"--grid: {axes.spell(settings)}: {error}") from None
    return Member(number, settings, experiment)


def _all(grid: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    flags = [axis.flag for axis in grid]
    for values in itertools.product(*(axis.values for axis in grid)):
        yield dict(zip(flags, values))


def _drawn(grid: Sequence[Axis], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields settings drawn at random, each once."""
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(draws):
        settings = {axis.flag: draw(rng, axis) for axis in grid}
        key = tuple(settings.values())
        if key not in seen:
            yield settings
        seen.add(key)


def draw(rng: np.random.Generator, axis: Axis) -> Any:
    """Returns one value of an axis: any of a list, or a number of an interval."""
    values = axis.values
    if not isinstance(values, Interval):
        return values[int(rng.integers(len(values)))]
    if values.is_log:
        number = float(np.exp(rng.uniform(np.log(values.low), np.log(values.high))))
    else:
        number = float(rng.uniform(values.low, values.high))
    rounded = float(f"{number:.{DIGITS}g}")
    return min(max(rounded, values.low), values.high)

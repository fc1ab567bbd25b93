"""Competitors take turns; medians are compared."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def seconds(function: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(
    competitors: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[Any]]:
    """What each competitor returned in each round; every other round runs in reverse
    order."""
    results: dict[str, list[Any]] = {name: [] for name in competitors}
    for number in range(rounds):
        for name in list(competitors)[:: -1 if number % 2 else 1]:
            results[name].append(competitors[name]())
    return results


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over rounds of numerator / denominator: a slow moment of the machine
    hits both sides of a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators))


def verdict(met: bool) -> str:
    """How a target's outcome is printed."""
    return "met" if met else "NOT met"

"""Loop, vector, compiled: the same arithmetic three ways, on the clock."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parity.labs import figures, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab

FEATURES = 20
"""Of the logistic regression."""
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
"""Lengths of the vectors; samples of the logistic regression are as many / FEATURES."""
REDUCED = (100, 10_000)
RATE = 0.1
LOOP = "Python loop"
VECTOR = "NumPy"
COMPILED = "JAX, jit"
LEAST_SECONDS = 0.02
"""A measurement repeats its call for at least so long."""
ROUNDS = 5
"""Measurements of which the fastest counts: other work only ever adds time."""

DOT = "dot product"
STEP = "logistic regression step"

Call = Callable[[], Any]


class Timed(NamedTuple):
    """What a way took.

    Attributes:
      seconds: of one call.
      result: what it returned, float64.
    """

    seconds: float
    result: np.ndarray


Found = Mapping[tuple[str, str, int], Timed]
"""(task, way, size) -> how it did."""


def dot_loop(x: list[float], y: list[float]) -> float:
    """Sum of products, number by number."""
    total = 0.0
    for a, b in zip(x, y):
        total += a * b
    return total


def step_loop(w: list[float], x: list[list[float]], t: list[float]) -> list[float]:
    """A step of gradient descent on logistic regression, number by number.

    Args:
      w: [features] weights.
      x: [samples, features].
      t: [samples] labels, 0 or 1.
    """
    gradient = [0.0] * len(w)
    for row, label in zip(x, t):
        score = sum(a * b for a, b in zip(row, w))
        error = 1 / (1 + math.exp(-score)) - label
        for place, value in enumerate(row):
            gradient[place] += error * value
    return [a - RATE * g / len(x) for a, g in zip(w, gradient)]


def step_vector(w: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The same step on whole arrays."""
    errors = 1 / (1 + np.exp(-(x @ w))) - t
    return w - RATE * (x.T @ errors) / len(x)


@jax.jit
def dot_compiled(x: jax.Array, y: jax.Array) -> jax.Array:
    """Sum of products, compiled."""
    return jnp.dot(x, y)


@jax.jit
def step_compiled(w: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """The same step, compiled."""
    errors = jax.nn.sigmoid(x @ w) - t
    return w - RATE * (x.T @ errors) / len(x)


def measure(bench: Bench) -> Findings:
    """Times every way at every size."""
    sizes = REDUCED if bench.is_reduced else SIZES
    found = {
        (task, way, size): timed(call)
        for size in sizes
        for task, ways in tasks(size).items()
        for way, call in ways.items()
    }
    return Findings([_picture(found), _table(found)], _claims(found))


def tasks(size: int) -> dict[str, dict[str, Call]]:
    """Returns task -> way -> a call that does it on the same numbers."""
    draw = np.random.default_rng(0).standard_normal
    x, y = draw(size, np.float32), draw(size, np.float32)
    w, rows = draw(FEATURES, np.float32), x.reshape(-1, FEATURES)
    labels = (rows[:, 0] > 0).astype(np.float32)
    arrays = {"x": x, "y": y, "w": w, "rows": rows, "labels": labels}
    lists = {name: array.tolist() for name, array in arrays.items()}
    there = {name: jnp.asarray(array) for name, array in arrays.items()}
    pair, three = ("x", "y"), ("w", "rows", "labels")
    return {
        DOT: {
            LOOP: _call(dot_loop, lists, pair),
            VECTOR: _call(np.dot, arrays, pair),
            COMPILED: _call(_waiting(dot_compiled), there, pair),
        },
        STEP: {
            LOOP: _call(step_loop, lists, three),
            VECTOR: _call(step_vector, arrays, three),
            COMPILED: _call(_waiting(step_compiled), there, three),
        },
    }


def _call(function: Callable, given: Mapping[str, Any], names: tuple[str, ...]) -> Call:
    arguments = [given[name] for name in names]
    return lambda: function(*arguments)


def _waiting(function: Callable) -> Callable:
    # JAX returns before the device is done.
    return lambda *arguments: function(*arguments).block_until_ready()


def timed(call: Call) -> Timed:
    """Returns the least time of a call, and what it returns."""
    # The first one compiles.
    result = np.asarray(call(), np.float64)
    times = max(1, round(LEAST_SECONDS / max(_seconds(call, 1), 1e-7)))
    return Timed(min(_seconds(call, times) for _ in range(ROUNDS)), result)


def _seconds(call: Call, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def _picture(found: Found) -> str:
    figure, panels = figures.grid(2, size=(5.6, 3.4), sharey=True)
    sizes = sorted({size for _, _, size in found})
    for axes, task in zip(panels, (DOT, STEP)):
        for number, way in enumerate((LOOP, VECTOR, COMPILED)):
            seconds = [found[task, way, size].seconds * 1e6 for size in sizes]
            axes.plot(sizes, seconds, label=way, **figures.stroke(number, len(sizes)))
        axes.set(title=task, xlabel="numbers", xscale="log", yscale="log")
    panels[0].set_ylabel("microseconds a call")
    figures.legend_below(figure, panels[0], 3)
    return figures.picture(
        figure,
        "Time of a call. What a call costs whatever its size is what the flat parts "
        "show; the slopes are the cost of a number.",
    )


def _table(found: Found) -> str:
    rows = []
    for task in (DOT, STEP):
        for size in sorted({size for _, _, size in found}):
            loop, *others = (found[task, w, size] for w in (LOOP, VECTOR, COMPILED))
            ratios = [f"{loop.seconds / other.seconds:.3g}" for other in others]
            rows.append([task, f"{size:,}", f"{loop.seconds * 1e6:.3g}", *ratios])
    head = ("task", "numbers", "loop, microseconds")
    return tables.table((*head, "loop / NumPy", "loop / JAX"), rows)


def apart(found: Found) -> float:
    """Returns the largest difference of any result from the loop's, over its size, at
    least the root of the number of terms: sums of random signs may cancel."""
    worst = 0.0
    for (task, way, size), of in found.items():
        loop = found[task, LOOP, size].result
        if way != LOOP:
            scale = max(float(np.abs(loop).max()), math.sqrt(size))
            worst = max(worst, float(np.abs(of.result - loop).max()) / scale)
    return worst


def _claims(found: Found) -> list[Claim]:
    largest = max(size for _, _, size in found)

    def ratio(task: str, way: str) -> float:
        return found[task, LOOP, largest].seconds / found[task, way, largest].seconds

    return [
        Claim(
            "all ways compute the same, in float32 where the loop has float64: largest "
            "difference over the size of the sum",
            *(apart(found), "<", 1e-4),
        ),
        *(
            Claim(
                f"{task} of {largest:,} numbers: seconds of the loop over {way}'s",
                *(ratio(task, way), ">=", 10.0, True),
            )
            for task in (DOT, STEP)
            for way in (VECTOR, COMPILED)
        ),
    ]


LAB = Lab(
    "Loop, vector, compiled",
    "A Python loop pays for every number what a call on a whole array pays once, so "
    "that the array wins by more the longer it is. Short arrays show the price of a "
    "call itself, which is higher in JAX than in NumPy.",
    measure,
)

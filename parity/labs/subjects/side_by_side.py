"""Linear algebra side by side: the same numbers in NumPy, JAX and PyTorch."""

import ast
import pathlib
from collections.abc import Mapping
from html import escape
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxnn.experiment.files import artifacts
from parity.labs import figures, tables, torch_side
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.sides import in_jax, in_numpy
from parity.report.html import element

SIZE = 64
"""Rows and columns of the matrices."""
HIDDEN = 16
"""Units of the small network."""
CALLS = {
    "dot": "xy",
    "matmul": "ab",
    "broadcast": "axy",
    "solve": "ax",
    "gradient": "vwb",
}
"""Operation -> its arguments, one letter each."""
FEW = 16.0
"""Units in the last place: what sums of 64 products in another order may differ by."""
FILES = {
    "NumPy": pathlib.Path(str(in_numpy.__file__)),
    "JAX": pathlib.Path(str(in_jax.__file__)),
    # Read, not imported: no lab has torch in its process.
    "PyTorch": pathlib.Path("torch_ref/side_by_side.py"),
}
"""Library -> file with its operations."""
WORST = "largest difference of any operation in float64"

Arrays = Mapping[str, np.ndarray]


def measure(bench: Bench) -> Findings:
    """Computes everything three times, and once in JAX's default precision."""
    torch_side.require("side_by_side")
    given = numbers()
    found = {
        "NumPy": computed(in_numpy, given),
        "JAX": in_float64(given),
        "PyTorch": in_torch(bench, given),
        "JAX, float32": computed(in_jax, given),
    }
    apart = {name: _distances(found["NumPy"], found[name]) for name in found}
    apart.pop("NumPy")
    return Findings([_picture(apart), _table(apart), _code()], _claims(apart))


def numbers() -> Arrays:
    """Returns the arguments by letter, float64."""
    draw = np.random.default_rng(0).standard_normal
    # A heavy diagonal: what is measured is the libraries, not an unlucky matrix.
    return {
        "x": draw(SIZE),
        "y": draw(SIZE),
        "a": draw((SIZE, SIZE)) + SIZE * np.eye(SIZE),
        "b": draw((SIZE, SIZE)),
        "v": draw((SIZE, HIDDEN)) / np.sqrt(SIZE),
        "w": draw((HIDDEN, 1)) / np.sqrt(HIDDEN),
    }


def computed(side: ModuleType, given: Arrays) -> Arrays:
    """Returns what each operation of a module makes of the numbers."""
    jaxed = side is in_jax
    arrays = {n: jax.numpy.asarray(a) if jaxed else a for n, a in given.items()}
    return {
        name: np.asarray(getattr(side, name)(*(arrays[letter] for letter in letters)))
        for name, letters in CALLS.items()
    }


def in_float64(given: Arrays) -> Arrays:
    """Returns the results of JAX once it has been told to keep float64."""
    with jax.enable_x64(True):
        return computed(in_jax, given)


def in_torch(bench: Bench, given: Arrays) -> Arrays:
    """Returns the results of PyTorch, from a process of its own."""
    paths = [bench.workdir / f"{name}.safetensors" for name in ("given", "torch")]
    artifacts.write_arrays(paths[0], given)
    torch_side.run("torch_ref.side_by_side", *map(str, paths))
    return artifacts.read_arrays(paths[1], "torch_ref.side_by_side")


def ulps(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference of two float64 arrays in units in the last place
    of the largest entry: sums that cancel have small entries and large terms."""
    unit = np.spacing(np.max(np.abs(a)))
    return float(np.max(np.abs(a - b)) / unit)


def _distances(a: Arrays, b: Arrays) -> dict[str, float]:
    return {name: ulps(a[name], b[name]) for name in CALLS}


def _picture(apart: Mapping[str, Mapping[str, float]]) -> str:
    figure, (axes,) = figures.grid(1, size=(8.0, 3.4))
    for number, (name, values) in enumerate(apart.items()):
        style: dict[str, Any] = figures.STROKES[number] | {"linestyle": ""}
        # Beside each other: equal ones would hide each other.
        at = np.arange(len(values)) + 0.1 * (number - 1)
        axes.plot(at, list(values.values()), label=name, **style)
    axes.axhline(FEW, color="0.6", linewidth=0.8)
    # Zero has a place too: equal to the last bit.
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks([0, *(10.0**power for power in range(0, 11, 2))])
    axes.set_ylim(-0.3, 1e10)
    axes.set_xticks(range(len(CALLS)), list(CALLS))
    axes.set_ylabel("ulps from NumPy")
    figures.legend_below(figure, axes, len(apart))
    return figures.picture(
        figure,
        "Largest difference from NumPy's float64, in units in the last place of the "
        f"largest entry; the line is at {FEW:g}.",
    )


def _table(apart: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [name, *(tables.number(values[name]) for values in apart.values())]
        for name in CALLS
    ]
    return tables.titled("Ulps from NumPy", ("operation", *apart), rows)


def _code() -> str:
    bodies = {name: bodies_of(path.read_text()) for name, path in FILES.items()}
    head = [element("th", name) for name in ("", *bodies)]
    rows = [
        element("tr", element("th", name), *(_cell(b[name]) for b in bodies.values()))
        for name in CALLS
    ]
    whole = element("table", element("tr", *head), *rows)
    return element("h2", "Code") + element("div", whole, class_="scroll")


def bodies_of(source: str) -> dict[str, str]:
    """Returns function -> the lines of its body without its docstring."""
    lines = source.splitlines()
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    found = {}
    for function in functions:
        # The docstring is the first statement of each.
        first = function.body[0].end_lineno or 0
        body = "\n".join(line[4:] for line in lines[first : function.end_lineno])
        found[function.name] = body.strip()
    return found


def _cell(code: str) -> str:
    return element("td", element("pre", escape(code)))


def _claims(apart: Mapping[str, Mapping[str, float]]) -> list[Claim]:
    return [
        Claim(
            "JAX and NumPy agree to a few units in the last place: " + WORST,
            *(max(apart["JAX"].values()), "<=", FEW),
        ),
        Claim(
            "PyTorch and NumPy agree as well: " + WORST,
            *(max(apart["PyTorch"].values()), "<=", FEW),
        ),
        Claim(
            "JAX makes float32 of NumPy's float64 unless it is told otherwise: least "
            "difference of any operation",
            *(min(apart["JAX, float32"].values()), ">", 1e5),
        ),
    ]


LAB = Lab(
    "NumPy, JAX and PyTorch side by side",
    "The same five operations, and the gradient among them, give the same numbers in "
    "all three to a few units in the last place, in float64. What differs is the "
    "spelling, and that JAX computes in float32 until jax_enable_x64 is set.",
    measure,
)

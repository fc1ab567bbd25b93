"""Pictures that need no run.

    python -m jaxnn.plots activations --output=activations.png

activations: every activation and its derivative on [-5, 5]. Exit code 2 on bad input.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn.activations import ACTIVATIONS, Activation
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.command_line import BAD_INPUT
from jaxnn.experiment.results.plots import canvas

COLUMNS = 3
POINTS = 1000
"""Even, so that none lies on 0, where kinks and steps have no derivative."""

JUMP = 0.5
"""A change between two neighbouring points that no continuous activation makes."""


def main(arguments: Sequence[str]) -> int:
    """Draws what the command line asks for.

    Args:
      arguments: without the program's name.

    Returns:
      The exit code.
    """
    try:
        values = parse(arguments)
        save(
            PICTURES[values.picture],
            values.output or pathlib.Path(f"{values.picture}.png"),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str):
        """Raises UserError."""
        raise UserError(f"{message}; --help says more")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The picture's name and where it goes.

    Raises:
      UserError: an unknown picture or flag.
    """
    parser = Parser(
        prog="python -m jaxnn.plots",
        allow_abbrev=False,
        description="Draws a picture that needs no run.",
    )
    parser.add_argument("picture", choices=PICTURES, help="what to draw")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="file to write; left out: the picture's name and .png",
    )
    return parser.parse_args(arguments)


def save(draw: Callable[[], Figure], path: pathlib.Path) -> None:
    """Draws and writes a picture and says where.

    Raises:
      UserError: an unknown format, or the file cannot be written.
    """
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UserError(
            f"--output: {path} names no known format; end it in one of "
            f"{', '.join(sorted(known))}"
        )
    try:
        draw().savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from None
    print(f"files: {path}")


def activations() -> Figure:
    """Every activation and its derivative on [-5, 5], each in axes of its own."""
    rows = -(-len(ACTIVATIONS) // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
    for axes, (name, function) in zip(grid, ACTIVATIONS.items()):
        draw_one(axes, name, function)
    for axes in grid[len(ACTIVATIONS) :]:
        axes.remove()
    for axes in grid[len(ACTIVATIONS) - COLUMNS : len(ACTIVATIONS)]:
        axes.set_xlabel("x")
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        frameon=False,
        ncols=2,
        loc="outside lower center",
    )
    return figure


def draw_one(axes: Axes, name: str, function: Activation) -> None:
    """One activation and its derivative."""
    x = np.linspace(-5, 5, POINTS)
    value, derivative = curves(name, function, x)
    axes.plot(x, unjoined(value), color=canvas.DARK, linewidth=1.8, label="value")
    axes.plot(
        x,
        unjoined(derivative),
        color=canvas.LIGHT,
        linestyle="--",
        linewidth=1.5,
        label="derivative",
    )
    axes.axhline(0, color="gray", linewidth=0.6, zorder=0)
    axes.axvline(0, color="gray", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(TITLES.get(name, name.replace("_", " ")), fontsize=10)


def curves(
    name: str, function: Activation, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """An activation's values and its derivatives by automatic differentiation: [points]
    -> 2 x [points]."""
    scalar = SCALARS.get(name, lambda function, x: function(x))
    value_and_derivative = jax.jit(
        jax.vmap(jax.value_and_grad(lambda x: scalar(function, x)))
    )
    value, derivative = value_and_derivative(jnp.asarray(x, jnp.float32))
    return np.asarray(value), np.asarray(derivative)


def unjoined(values: np.ndarray) -> np.ndarray:
    """Values with a gap where they jump, so that no line is drawn there."""
    jumps = np.abs(np.diff(values, prepend=values[:1])) > JUMP
    return np.where(jumps, np.nan, values)


SCALARS = {
    "softmax": lambda function, x: function(
        jnp.stack([x, jnp.zeros_like(x), jnp.ones_like(x)])
    )[0]
}
"""How an activation that is not elementwise becomes a function of one number."""

TITLES = {"softmax": "softmax: first of softmax(x, 0, 1)"}
PICTURES = {"activations": activations}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Draws pictures beyond those of a run.

    python -m jaxnn.plots activations --output=activations.png
    python -m jaxnn.plots features RUN
    python -m jaxnn.plots boundary RUN --output=boundary.gif

activations: every activation with its first and second derivative on [-5, 5].
features: what the layers of a finished run on images respond to.
boundary: how the regions of the classes move, of a finished run on two features that
  recorded its parameters (--record=params) or kept checkpoints (--checkpoint_every=1
  --keep=60); a GIF.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnn import features, moving_boundary
from jaxnn.activations import ACTIVATIONS, Activation
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.results.plots import canvas

COLUMNS = 3
"""Axes in a row."""

POINTS = 1000
"""Even, so that none is at 0, where kinks and steps have no derivative."""

JUMP = 0.5
"""Change between two neighbouring points that no continuous activation makes."""


def main(arguments: Arguments) -> None:
    """Draws the picture that the command line names.

    Raises:
      UserError: no picture, an unknown one, or a file that cannot be written.
    """
    name, *runs = arguments.names or [""]
    known: Mapping[str, tuple[Callable, tuple[str, ...]]] = PICTURES | ANIMATIONS
    if name not in known:
        raise UserError(f"picture {name!r}: name one of {', '.join(known)}")
    draw, needs = known[name]
    if len(runs) != len(needs):
        raise UserError(f"{name}: give {' '.join([name, *needs])}, and nothing more")
    ending = "gif" if name in ANIMATIONS else "png"
    path = pathlib.Path(arguments.values.output or f"{name}.{ending}")
    write: Callable[..., None] = save_animation if name in ANIMATIONS else save
    write(functools.partial(draw, *runs), path)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "File to write; its ending is the format. Default: the picture's name and "
        ".png or .gif, here.",
        flag_values=values,
    )


def save(draw: Callable[[], Figure], path: pathlib.Path) -> None:
    """Draws a picture, writes it and prints the path.

    Raises:
      UserError: the file's ending is unknown, or it cannot be written.
    """
    known = FigureCanvasAgg.get_supported_filetypes()
    # Asked first, as drawing takes seconds.
    if path.suffix.removeprefix(".").lower() not in known:
        raise UserError(
            f"--output: {path} names no known format; end it in one of "
            f"{', '.join(sorted(known))}"
        )
    _write(lambda path: draw().savefig(path, dpi=canvas.DPI), path)


def save_animation(write: Callable[[pathlib.Path], None], path: pathlib.Path) -> None:
    """Writes an animation and prints the path.

    Raises:
      UserError: the file does not end in .gif, or it cannot be written.
    """
    if path.suffix != ".gif":
        raise UserError(f"--output: {path} must end in .gif")
    _write(write, path)


def _write(write: Callable[[pathlib.Path], None], path: pathlib.Path) -> None:
    """Writes a file and prints its path; raises UserError if that cannot be done."""
    try:
        write(path)
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from None
    print(f"files: {path}")


def activations() -> Figure:
    """Draws every activation and its derivatives on [-5, 5], each in its own axes."""
    number = len(ACTIVATIONS)
    rows = -(-number // COLUMNS)
    figure = Figure(figsize=(3 * COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
    for axes, (name, function) in zip(grid, ACTIVATIONS.items()):
        draw_one(axes, name, function)

    # The last row may not be full; the label goes under the lowest axes of each column.
    for axes in grid[number:]:
        axes.remove()
    for axes in grid[number - COLUMNS : number]:
        axes.set_xlabel("x")
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        frameon=False,
        ncols=3,
        loc="outside lower center",
    )
    return figure


def draw_one(axes: Axes, name: str, function: Activation) -> None:
    """Draws one activation and its derivatives."""
    x = np.linspace(-5, 5, POINTS)
    value, derivative, second = curves(name, function, x)
    axes.plot(x, unjoined(value), color=canvas.DARK, linewidth=1.8, label="value")
    axes.plot(
        x,
        unjoined(derivative),
        color=canvas.LIGHT,
        linestyle="--",
        linewidth=1.5,
        label="derivative",
    )
    axes.plot(
        x,
        unjoined(second),
        color="black",
        linestyle=":",
        linewidth=1.2,
        label="second derivative",
    )
    axes.axhline(0, color="gray", linewidth=0.6, zorder=0)
    axes.axvline(0, color="gray", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(TITLES.get(name, name.replace("_", " ")), fontsize=10)


def curves(
    name: str, function: Activation, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns values, first and second derivatives, by automatic differentiation.

    Args:
      name: a key of `ACTIVATIONS`.
      function: the activation.
      x: [points].
    """
    scalar = SCALARS.get(name, lambda function, x: function(x))
    slope = jax.grad(lambda x: scalar(function, x))
    each = (lambda x: scalar(function, x), slope, jax.grad(slope))
    evaluate = jax.jit(jax.vmap(lambda x: tuple(curve(x) for curve in each)))
    value, first, second = map(np.asarray, evaluate(jnp.asarray(x, jnp.float32)))
    return value, first, second


def unjoined(values: np.ndarray) -> np.ndarray:
    """Returns values with a gap where they jump, so that no line is drawn there."""
    jumps = np.abs(np.diff(values, prepend=values[:1])) > JUMP
    return np.where(jumps, np.nan, values)


def _first_of_softmax(function: Activation, x: jax.Array) -> jax.Array:
    return function(jnp.stack([x, jnp.zeros_like(x), jnp.ones_like(x)]))[0]


SCALARS = {"softmax": _first_of_softmax}
"""Activation that is not elementwise -> a function of (activation, one number)."""

TITLES = {"softmax": "softmax: first of softmax(x, 0, 1)"}
PICTURES: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "activations": (activations, ()),
    "features": (features.draw, ("RUN",)),
}
"""Picture -> what draws it, and what it needs."""
ANIMATIONS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "boundary": (moving_boundary.write, ("RUN",)),
}
"""Animation -> what writes it, given what it needs and a path."""


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(main, __doc__, define_flags)


if __name__ == "__main__":
    command()

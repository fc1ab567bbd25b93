"""Picture of diagnostics.csv: each measured number by layer and epoch."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnn.experiment.files.diagnostics import Diagnostics
from jaxnn.experiment.results.plots import canvas

# Measured number -> title, and whether its scale is logarithmic.
MAPS = {
    "gradient_norm": ("gradient norm", True),
    "update_ratio": ("update / weights", True),
    "underflow": ("share of gradient lost in FP16", False),
    "activation_mean": ("activation mean", False),
    "activation_std": ("activation deviation", True),
    "dead": ("dead units, share", False),
    "saturated": ("saturated activations, share", False),
}
COLUMNS = 3
# A light and a dark end, and a lightness that only falls between them.
SHADES = "Blues"
MOST_NAMES = 20
INCHES_A_LAYER = 0.22


def picture(found: Diagnostics) -> Figure:
    """A map of layers and epochs for each measured number, and the curves below."""
    drawn = [name for name in MAPS if _is_known(found.measured[name][:, 1:])]
    panels = len(drawn) + 2
    rows = -(-panels // COLUMNS)
    height = 1.2 + INCHES_A_LAYER * min(max(len(found.layers), 6), 2 * MOST_NAMES)
    figure = Figure(figsize=(4.2 * COLUMNS, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
    for axes, name in zip(grid, drawn):
        _map(figure, axes, found, name)
    _curve(grid[len(drawn)], found, "loss_gap", "held-out loss less training loss")
    _curve(grid[len(drawn) + 1], found, "loss_scale", "loss scale of FP16")
    for axes in grid[panels:]:
        axes.remove()
    return figure


def _map(figure: Figure, axes: Axes, found: Diagnostics, name: str) -> None:
    """Draws a measured number: a row a layer, a column an epoch, a shade a value."""
    title, is_log = MAPS[name]
    values = found.measured[name][:, 1:].T
    known = values[(values > 0) & (values < np.inf) if is_log else np.isfinite(values)]
    norm = LogNorm if is_log and len(known) else Normalize
    ends = dict(vmin=known.min(), vmax=known.max()) if len(known) else {}
    edges = _edges(found.epochs)
    image = axes.pcolormesh(
        edges,
        np.arange(len(values) + 1),
        np.ma.masked_invalid(values),
        cmap=SHADES,
        norm=norm(**ends),
    )
    # The first layer above; what is not defined is hatched.
    axes.invert_yaxis()
    axes.patch.set(hatch="///", edgecolor="0.8")
    every = -(-len(values) // MOST_NAMES)
    places = np.arange(0, len(values), every)
    axes.set_yticks(places + 0.5, [found.layers[1 + place] for place in places])
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes)


def _curve(axes: Axes, found: Diagnostics, name: str, title: str) -> None:
    """Draws a number of the whole network over the epochs."""
    values = found.of_network[name]
    marker = "o" if len(values) == 1 else None
    axes.plot(found.epochs, values, color=canvas.DARK, marker=marker)
    if name == "loss_scale":
        skipped = found.of_network["skipped"]
        axes.set_yscale("log", base=2)
        title += f"; {skipped.sum():.0f} steps skipped"
    else:
        axes.axhline(0, color="gray", linewidth=0.6, zorder=0)
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _edges(epochs: np.ndarray) -> np.ndarray:
    """Returns the sides of each epoch's column; epochs may be missing."""
    return np.append(epochs - 0.5, epochs[-1] + 0.5)


def _is_known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())

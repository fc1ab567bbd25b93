"""Style of the pictures: figures, strokes that a gray printer tells apart, embedding.

Pictures are drawn on white and lie on the page as a sheet of paper, in light and dark.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from parity.report.html import element

# Okabe and Ito's colours, dark and light in turn; dash and marker repeat what they say.
STROKES: tuple[dict[str, Any], ...] = (
    dict(color="#000000", linestyle="-", marker="o"),
    dict(color="#0072b2", linestyle="--", marker="s"),
    dict(color="#e69f00", linestyle="-", marker="^"),
    dict(color="#a3161a", linestyle=(0, (5, 1, 1, 1)), marker="D"),
    dict(color="#56b4e9", linestyle=(0, (4, 1.5)), marker="v"),
    dict(color="#006d53", linestyle=":", marker="P"),
    dict(color="#cc79a7", linestyle="--", marker="X"),
    dict(color="#5b0a5b", linestyle="-.", marker="*"),
    dict(color="#8a8a8a", linestyle=(0, (1, 1)), marker="<"),
)
"""Of curves, in order."""
SHADES = "cividis"
"""Of heat maps: its lightness only rises, so that gray keeps their order."""
MARKERS_A_CURVE = 8
MARKER_SIZE = 5.0


def grid(
    columns: int, rows: int = 1, size: tuple[float, float] = (4.0, 3.2), **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Returns a figure of panels, row after row.

    Args:
      columns: panels in a row.
      rows: how many rows.
      size: of a panel, in inches.
      **shared: sharex and sharey, as matplotlib takes them.
    """
    whole = (size[0] * columns, size[1] * rows)
    # Figure instead of pyplot: no global state, no window, and nothing to close.
    figure = Figure(figsize=whole, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, **shared).reshape(-1)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(panels)


def stroke(number: int, points: int) -> dict[str, Any]:
    """Returns how to draw the curve of a number, with few markers along its points."""
    every = max(points // MARKERS_A_CURVE, 1)
    # Markers of curves that lie on each other do not hide each other.
    first = (number * every // len(STROKES)) % every
    return {
        **STROKES[number % len(STROKES)],
        "markevery": (first, every),
        "markersize": MARKER_SIZE,
        "linewidth": 1.5,
    }


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Puts one legend for all panels below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=3.4,
    )


def heat(
    figure: Figure,
    axes: Axes,
    values: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    norm: Any = None,
) -> Any:
    """Draws [rows, columns] values as shades, hatched where there is none; the first
    row above. Returns the image, for a colour bar."""
    # Cells as one picture: thousands of paths would weigh megabytes.
    image = axes.pcolormesh(
        np.ma.masked_invalid(values), cmap=SHADES, norm=norm, rasterized=True
    )
    axes.patch.set(hatch="///", edgecolor="0.7")
    axes.invert_yaxis()
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        every = -(-len(names) // 16)
        middles = np.arange(0, len(names), every) + 0.5
        axis.set_ticks(middles, names[::every])
    return image


def whole_numbers(axes: Axes) -> None:
    """Marks whole numbers alone on the x axis: epochs, layers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def picture(figure: Figure, caption: str) -> str:
    """Returns HTML of a figure, embedded as an SVG, with its caption.

    Args:
      figure: what to draw.
      caption: text below, and for those who cannot see it.
    """
    for axes in figure.axes:
        # Within a few decades matplotlib names what lies between them, too closely.
        if axes.get_xscale() == "log":
            axes.xaxis.set_minor_formatter(NullFormatter())
    file = io.BytesIO()
    # The same picture gets the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "labs"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode()
    image = element(
        "img", src=f"data:image/svg+xml;base64,{data}", alt=caption, class_="sheet"
    )
    return element("figure", image, element("figcaption", escape(caption)))

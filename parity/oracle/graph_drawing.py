"""A computation graph as SVG, drawn by matplotlib, and as Mermaid."""

import io
import pathlib
from collections.abc import Callable, Iterator

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from parity.oracle.graph import GIVEN, Node

MOST = 60
"""Nodes that a picture can show."""
COLUMN, ROW = 2.4, 1.1
"""Inches from a node to the next."""
BOX = dict(boxstyle="round,pad=0.5", facecolor="white", edgecolor="black")
INPUT = BOX | dict(facecolor="0.9")


def write(path: pathlib.Path, nodes: list[Node], derivatives: list[float]) -> None:
    """Writes a drawing; the ending of the name says which.

    Args:
      path: a file that ends in .svg or .mmd.
      nodes: nodes of a graph, the output last.
      derivatives: d output / d node of each.

    Raises:
      UserError: another ending, too many nodes, or the file cannot be written.
    """
    draw = DRAWN_BY.get(path.suffix)
    if draw is None:
        raise UserError(f"--graph_file: {path} must end in {' or '.join(DRAWN_BY)}")
    if len(nodes) > MOST:
        raise UserError(
            f"--graph_file: draws {MOST} nodes at most, and the graph has {len(nodes)}"
        )
    try:
        artifacts.write_text(path, draw(nodes, derivatives))
    except OSError as error:
        raise UserError(
            f"--graph_file: cannot write {path}: {error.strerror}"
        ) from None


def mermaid(nodes: list[Node], derivatives: list[float]) -> str:
    """Returns a flowchart in Mermaid's language, a slope on each arrow."""
    return "\n".join(["flowchart LR", *_mermaid_lines(nodes, derivatives)]) + "\n"


def _mermaid_lines(nodes: list[Node], derivatives: list[float]) -> Iterator[str]:
    for node, derivative in zip(nodes, derivatives):
        text = "<br>".join(_texts(node, derivative, nodes[-1].name))
        yield f'  {node.name}["{text}"]'
    for node in nodes:
        for edge in node.edges:
            yield f'  {edge.argument} -->|"{edge.slope:.4g}"| {node.name}'


def svg(nodes: list[Node], derivatives: list[float]) -> str:
    """Returns a picture: inputs on the left, each node right of its arguments."""
    places = _places(nodes)
    width = COLUMN * (1 + max(x for x, _ in places.values()))
    height = ROW * (1 + max(y for _, y in places.values()))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    for node, derivative in zip(nodes, derivatives):
        text = "\n".join(_texts(node, derivative, nodes[-1].name))
        box = INPUT if node.formula == GIVEN else BOX
        axes.text(
            *places[node.name], text, ha="center", va="center", bbox=box, zorder=2
        )
        for edge in node.edges:
            _arrow(axes, places[edge.argument], places[node.name], edge.slope)
    axes.set_xlim(-0.5, width / COLUMN - 0.5)
    axes.set_ylim(height / ROW - 0.5, -0.5)
    text = io.StringIO()
    # Text stays text, and equal graphs give equal files.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "graph"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _texts(node: Node, derivative: float, output: str) -> list[str]:
    formula = node.name if node.formula == GIVEN else f"{node.name} = {node.formula}"
    value = f"{float(node.tensor.value):.6g}"
    return [formula, f"value {value}", f"d{output}/d{node.name} {derivative:.6g}"]


def _places(nodes: list[Node]) -> dict[str, tuple[float, float]]:
    """Returns column and row of each node: the column is the longest way to it."""
    columns: dict[str, int] = {}
    for node in nodes:
        before = [columns[edge.argument] for edge in node.edges]
        columns[node.name] = max(before, default=-1) + 1
    members: dict[int, list[str]] = {}
    for name, column in columns.items():
        members.setdefault(column, []).append(name)
    tallest = max(map(len, members.values()))
    return {
        name: (column, row + (tallest - len(names)) / 2)
        for column, names in members.items()
        for row, name in enumerate(names)
    }


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], slope: float
) -> None:
    style = dict(arrowstyle="-|>", color="0.4", shrinkA=20, shrinkB=40)
    axes.annotate("", end, start, arrowprops=style, zorder=1)
    # A third of the way: there arrows to one node have not met yet.
    x, y = (a + (b - a) * 0.42 for a, b in zip(start, end))
    axes.text(x, y, f"{slope:.4g}", fontsize=8, ha="center", va="bottom", color="0.2")


DRAWN_BY: dict[str, Callable[[list[Node], list[float]], str]] = {
    ".svg": svg,
    ".mmd": mermaid,
}
"""Ending of a file -> what draws it."""

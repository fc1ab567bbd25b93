"""Paths of a computation graph: a derivative is a sum over them.

d output / d input is the sum, over all paths from the input to the output, of the
product of the slopes on the path's edges (Bauer 1974, "Computational graphs and
rounding error"). Reverse mode gets the same from one walk over the edges.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from parity.oracle.graph import GIVEN, Edge, Node

MOST = 8
"""Paths of an input that are printed: their number may double with every node."""


class Path(NamedTuple):
    """A way from an input to the output.

    Attributes:
      names: its nodes, the output last.
      slopes: derivative of each node but the first by the one before it.
    """

    names: tuple[str, ...]
    slopes: tuple[float, ...]

    @property
    def product(self) -> float:
        """What the path contributes to the derivative."""
        return math.prod(self.slopes)


def paths(nodes: list[Node], start: str) -> Iterator[Path]:
    """Yields the paths from a node to the last one.

    Args:
      nodes: nodes of a graph, the output last.
      start: name of a node.
    """
    output = nodes[-1].name
    needed = _needed(nodes)
    after: dict[str, list[tuple[str, Edge]]] = {node.name: [] for node in nodes}
    for node in nodes:
        # Dead ends may be as many as paths.
        for edge in node.edges if node.name in needed else ():
            after[edge.argument].append((node.name, edge))
    # A stack instead of recursion, which ends at a thousand nodes.
    waiting = [Path((start,), ())]
    while waiting:
        path = waiting.pop()
        if path.names[-1] == output:
            yield path
            continue
        for name, edge in reversed(after[path.names[-1]]):
            waiting.append(Path((*path.names, name), (*path.slopes, edge.slope)))


def _needed(nodes: list[Node]) -> set[str]:
    """Returns the names of the last node and of all that it is computed from."""
    edges = {node.name: node.edges for node in nodes}
    needed: set[str] = set()
    waiting = [nodes[-1].name]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [edge.argument for edge in edges[name]]
    return needed


def lines(nodes: list[Node], derivatives: list[float]) -> Iterator[str]:
    """Yields a line for each path of each input, with the product of its slopes.

    Args:
      nodes: nodes of a graph, the output last.
      derivatives: d output / d node of each.
    """
    output = nodes[-1].name
    for node, derivative in zip(nodes, derivatives):
        if node.formula != GIVEN or node.name == output:
            continue
        yield f"d {output} / d {node.name} = {derivative:.9g}, the sum over"
        found = list(itertools.islice(paths(nodes, node.name), MOST + 1))
        for path in found[:MOST]:
            slopes = " * ".join(f"{slope:.9g}" for slope in path.slopes)
            yield f"  {' -> '.join(path.names)}: {slopes} = {path.product:.9g}"
        if not found:
            yield "  no path: it does not reach the output"
        if len(found) > MOST:
            yield "  and more paths"

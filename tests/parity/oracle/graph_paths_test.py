"""Tests of parity/oracle/graph_paths.py."""

import math

import pytest

from parity.oracle import graph, graph_paths


def built(text, at):
    return graph.build(text, graph.parse_values(at))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (graph.EXAMPLE, graph.EXAMPLE_AT),
        ("y = x*x + x", "x=3"),
        ("u = a*b; v = u - a/b; w = u*v - tanh(v); (w*w)^a", "a=2,b=0.5"),
        ("d = b*b; d*a; d", "a=1,b=2"),
    ],
)
def test_products_of_slopes_add_up_to_the_derivative(text, at):
    nodes = built(text, at)
    for node, derivative in zip(nodes, graph.derivatives_of(nodes)):
        found = list(graph_paths.paths(nodes, node.name))
        total = math.fsum(path.product for path in found)
        assert total == pytest.approx(derivative, rel=1e-12)


def test_the_paths_of_the_example():
    nodes = built(graph.EXAMPLE, graph.EXAMPLE_AT)
    found = [path.names for path in graph_paths.paths(nodes, "a")]
    assert found == [("a", "e", "g"), ("a", "f", "g")]


def test_lines():
    nodes = built("y = x*x + x; z = 2*k", "x=3,k=1")
    assert list(graph_paths.lines(nodes, graph.derivatives_of(nodes))) == [
        "d z / d k = 2, the sum over",
        "  k -> z: 2 = 2",
        "d z / d x = 0, the sum over",
        "  no path: it does not reach the output",
    ]


def test_many_paths_are_not_all_walked():
    """x doubled 60 times has 2^60 paths, and as many dead ends."""
    doubled = "; ".join(f"x{n + 1} = x{n} + x{n}" for n in range(60))
    dead = "; ".join(f"y{n + 1} = y{n} + y{n}" for n in range(60))
    nodes = built(f"y0 = x0; {dead}; {doubled}", "x0=1")
    lines = list(graph_paths.lines(nodes, graph.derivatives_of(nodes)))
    assert len(lines) == graph_paths.MOST + 2
    assert lines[-1] == "  and more paths"

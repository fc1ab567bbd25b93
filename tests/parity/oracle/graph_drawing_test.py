"""Tests of parity/oracle/graph_drawing.py."""

import xml.etree.ElementTree as ET

import pytest

from jaxnn.experiment.errors import UserError
from parity.oracle import graph, graph_drawing


@pytest.fixture
def example():
    nodes = graph.build("y = x*x", {"x": 3.0})
    return nodes, graph.derivatives_of(nodes)


def test_mermaid(example):
    assert graph_drawing.mermaid(*example).splitlines() == [
        "flowchart LR",
        '  x["x<br>value 3<br>dy/dx 6"]',
        '  y["y = x * x<br>value 9<br>dy/dy 1"]',
        '  x -->|"3"| y',
        '  x -->|"3"| y',
    ]


def test_svg_holds_every_node_and_slope(example, tmp_path):
    path = tmp_path / "graph.svg"
    graph_drawing.write(path, *example)
    texts = [text.strip() for text in ET.parse(path).getroot().itertext()]
    for text in ("x", "value 3", "dy/dx 6", "y = x * x", "value 9"):
        assert text in texts
    assert texts.count("3") == 2
    assert graph_drawing.svg(*example) == path.read_text()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("graph.png", "must end in .svg or .mmd"),
        ("none/graph.svg", "cannot write"),
    ],
)
def test_bad_files_are_named(example, tmp_path, name, complaint):
    with pytest.raises(UserError) as error:
        graph_drawing.write(tmp_path / name, *example)
    assert complaint in str(error.value)
    assert "--graph_file" in str(error.value)


def test_too_many_nodes(tmp_path):
    nodes = graph.build("x" + "+x" * graph_drawing.MOST, {"x": 1.0})
    derivatives = graph.derivatives_of(nodes)
    with pytest.raises(UserError, match="the graph has 61"):
        graph_drawing.write(tmp_path / "x.svg", nodes, derivatives)

"""Pictures that a gray printer and a page without a network can show."""

import base64
import re

import numpy as np
from matplotlib.colors import to_rgb

from parity.labs import curves, figures


def test_strokes_differ_by_dash_or_marker():
    shapes = [(str(s["linestyle"]), s["marker"]) for s in figures.STROKES]
    assert len({marker for _, marker in shapes}) == len(shapes)


def test_colours_that_follow_each_other_differ_in_lightness():
    weights = np.array([0.2126, 0.7152, 0.0722])
    light = [float(np.dot(to_rgb(s["color"]), weights)) for s in figures.STROKES[:4]]
    assert len({round(each, 1) for each in light}) == 4


def test_picture_is_embedded_and_the_same_twice():
    def html():
        figure, (axes,) = figures.grid(1)
        curves.draw(axes, {"a": np.array([[1.0, 2.0], [2.0, 4.0]])})
        return figures.picture(figure, "a < b")

    found = html()
    assert found == html()
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', found)[1]
    assert base64.b64decode(data).startswith(b"<?xml")
    assert "a &lt; b" in found


def test_curves_are_means_and_spread_from_least_to_largest():
    _, (axes,) = figures.grid(1)
    curves.draw(axes, {"a": np.array([[1.0, 2.0], [3.0, 6.0]])})
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [2.0, 4.0]
    (shade,) = axes.collections
    heights = shade.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 6.0)


def test_a_mean_ends_where_a_run_ended():
    _, (axes,) = figures.grid(1)
    curves.draw(axes, {"a": np.array([[1.0, 2.0], [3.0, np.nan]])})
    values = axes.lines[0].get_ydata()
    assert values[0] == 2
    assert np.isnan(values[1])

"""Cells and tables of a page."""

import numpy as np

from parity.labs import tables


def test_spread_is_mean_and_sample_deviation():
    assert tables.spread(np.array([1.0, 2.0, 3.0])) == "2 ± 1"


def test_spread_of_one_run_is_its_figure():
    assert tables.spread(np.array([0.12345])) == "0.123"


def test_spread_says_that_a_run_diverged():
    assert tables.spread(np.array([1.0, np.nan])) == "diverged"


def test_text_is_escaped_and_figures_are_aligned():
    html = tables.table(["a", "b"], [["x < y", "1"]])
    assert "<td>x &lt; y</td>" in html
    assert '<td class="number">1</td>' in html

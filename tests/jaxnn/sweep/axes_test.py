"""Tests of jaxnn/sweep/axes.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import axes
from jaxnn.sweep.axes import Axis, Interval

BASE = Experiment(precision="fp32")
rates = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5, unique=True)
seeds = st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True)
sizes = st.lists(
    st.lists(st.integers(1, 99), max_size=3).map(tuple),
    min_size=1,
    max_size=4,
    unique=True,
).filter(lambda values: values != [()])
blanks = st.sampled_from(["", " ", "  "])


@given(rates, seeds, sizes, blanks)
def test_written_values_are_read(rates, seeds, sizes, blank):
    lists = "|".join(",".join(map(str, size)) for size in sizes)
    text = f";{blank}".join(
        [
            f"learning_rate{blank}={blank}" + f",{blank}".join(map(str, rates)),
            "seed=" + ",".join(map(str, seeds)),
            f"hidden_sizes={lists}",
        ]
    )
    grid = axes.parse(text, BASE, is_random=False)
    assert grid == [
        Axis("learning_rate", rates),
        Axis("seed", seeds),
        Axis("hidden_sizes", sizes),
    ]
    assert axes.size(grid) == len(rates) * len(seeds) * len(sizes)


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_a_grid_or_one_line(text, is_random):
    said = ""
    try:
        axes.parse(text, BASE, is_random)
    except UserError as error:
        said = str(error)
    assert "\n" not in said


class TestSpans:
    def test_of_whole_numbers_lists_them(self):
        (axis,) = axes.parse("seed=0..4", BASE, is_random=False)
        assert list(axis.values) == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("text", "interval"),
        [
            ("learning_rate=1e-4..1e-1", Interval(1e-4, 1e-1, True)),
            ("l2=0..0.1", Interval(0, 0.1, False)),
            ("momentum=0.5..0.9:uniform", Interval(0.5, 0.9, False)),
            ("momentum=0.5..0.9:log", Interval(0.5, 0.9, True)),
        ],
    )
    def test_of_any_number_are_drawn_from(self, text, interval):
        (axis,) = axes.parse(text, BASE, is_random=True)
        assert axis.values == interval

    @pytest.mark.parametrize(
        ("text", "is_random", "message"),
        [
            ("learning_rate=1e-4..1e-1", False, "give --random"),
            ("learning_rate=1e-1..1e-4", True, "is not below"),
            ("l2=0..1:log", True, "has no logarithm"),
            ("l2=0..1:cubic", True, "comes log or uniform"),
            ("adam_b1=0.5..1.5", True, "--adam_b1: must be less than 1"),
            ("seed=1,1", False, "seed has 1 twice"),
            ("seed=1; seed=2", False, "seed is given twice"),
            ("seed", False, "'seed' is not FLAG=VALUES"),
            ("seed=1,,2", False, "seed has an empty value"),
        ],
    )
    def test_bad_ones_are_refused(self, text, is_random, message):
        with pytest.raises(UserError) as error:
            axes.parse(text, BASE, is_random)
        assert message in str(error.value)

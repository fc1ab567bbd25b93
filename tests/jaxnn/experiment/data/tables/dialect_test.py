"""Tests of jaxnn/experiment/data/tables/dialect.py."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data.tables.dialect import Asked, Dialect, detect


class TestDetect:
    @pytest.mark.parametrize(
        ("text", "dialect"),
        [
            ("a,b\n1,2\n", Dialect()),
            ("a;b\n0,5;2\n1,5;3\n", Dialect(";", ",")),
            ("a;b\n0.5;2\n1.5;3\n", Dialect(";")),
            ("0,5;2;1,5\n1,5;3;2,5\n", Dialect(";", ",", header=False)),
            ("a\tb\n1\tx, y\n2\tz, w\n", Dialect("\t")),
            ("a|b\n1|2\n", Dialect("|")),
            ('a,b\n"0,5",2\n"1,5",3\n', Dialect()),
            ("1,2\n3,4\n", Dialect(header=False)),
            ("5.1,0.2,rose\n4.9,0.3,lily\n", Dialect(header=False)),
            ("size,kind\n4.9,lily\n", Dialect()),
            # A name among the columns of numbers makes the first line the header.
            ("country,2019,change\nx,1,2\ny,3,4\n", Dialect()),
            ("red,yes\nblue,no\nred,no\nblue,yes\n", Dialect(header=False)),
            ("colour,sold\nblue,no\nred,yes\n", Dialect()),
            # So does a number above texts.
            ("1,2,3\n5.1,0.2,rose\n4.9,0.3,lily\n", Dialect()),
            ("5.1,7\n4.9,\n", Dialect(header=False)),
            ("a,b\n", Dialect()),
            ("1,2\n", Dialect(header=False)),
            ("y\n1\n2\n", Dialect()),
            ("", Dialect()),
            # A row of another length is a fault of the row.
            ("a,y\n1,2\n1\n", Dialect()),
        ],
    )
    def test_finds_out(self, text, dialect):
        assert detect(text, Asked()) == dialect

    def test_flags_decide(self):
        assert detect("1,2\n3,4\n", Asked("tab", ",", True)) == Dialect(
            "\t", ",", False
        )

    def test_known_names_are_a_header(self):
        assert detect("2019,2020\n3,4\n", Asked(), ["2020"]).header

    @given(
        st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", ","), ("|", ".")]),
        st.booleans(),
        st.lists(
            st.tuples(st.floats(-1e6, 1e6), st.integers(-100, 100)),
            min_size=2,
            max_size=9,
        ),
    )
    @settings(deadline=None, max_examples=80, derandomize=True)
    def test_finds_what_was_written(self, marks, header, rows):
        delimiter, decimal = marks
        lines = ["size" + delimiter + "count"] * header + [
            f"{size:.3f}".replace(".", decimal) + f"{delimiter}{count}"
            for size, count in rows
        ]
        found = detect("\n".join(lines), Asked())
        assert found == Dialect(delimiter, decimal, header)

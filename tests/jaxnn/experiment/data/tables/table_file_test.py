"""Tests of cells.py, table_file.py and arrow_reader.py of data/tables."""

import csv
import gzip
import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data.tables import table_file
from jaxnn.experiment.data.tables.cells import Numbers, number
from jaxnn.experiment.data.tables.dialect import Asked
from jaxnn.experiment.errors import UserError

words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(
    lambda cell: number(cell) is None
)
cells = st.one_of(st.floats(-1e6, 1e6, width=32).map(str), words)
odd = st.sampled_from(
    ["02139", "1_000", "1e400", "nan", "+5", "5.", ".5", " 7 ", "1,234", "9" * 17, ""]
)


def texts_of(table):
    return {
        name: held.values.tolist()
        if isinstance(held, Numbers)
        else [held.names[code] for code in held.codes]
        for name, held in table.columns.items()
    }


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "t.csv"

    def write(rows, **dialect):
        if isinstance(rows, str | bytes):
            path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
            return path
        text = io.StringIO(newline="")
        csv.writer(text, **dialect).writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture
def fast(monkeypatch):
    """read(path, ...) with pyarrow, in small blocks; fails if cells are read singly."""
    from jaxnn.experiment.data.tables import arrow_reader

    monkeypatch.setattr(table_file, "FAST_FROM", 0)
    monkeypatch.setattr(arrow_reader, "BLOCK_BYTES", 256)

    def read(path, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_file, "_read_exact", None)
            return table_file.read(path, *arguments)

    return read


class TestRead:
    @given(st.lists(st.tuples(cells, cells), min_size=1, max_size=10))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_cells_and_their_lines(self, write, rows):
        table = table_file.read(write([("first", "second"), *rows]), Asked(","))
        for column, held in zip(zip(*rows), texts_of(table).values()):
            is_numbers = isinstance(held[0], float)
            assert list(map(float, column) if is_numbers else column) == held
        assert [table.line(row) for row in range(len(rows))] == [
            *range(2, len(rows) + 2)
        ]

    def test_blank_lines_quotes_spaces_and_the_byte_order_mark(self, write):
        path = write('\ufeff a , b\r\n\r\n"x, y", 1 \r\n"two\nlines",2\r\n3,4')
        table = table_file.read(path)
        assert texts_of(table) == {"a": ["x, y", "two\nlines", "3"], "b": [1, 2, 4]}
        assert [table.line(row) for row in range(3)] == [3, 5, 6]

    def test_spaces_before_a_quote(self, write):
        path = write('a, "b, c"\n1, "x, y"\n2,\t"z"\n')
        assert texts_of(table_file.read(path))["b, c"] == ["x, y", '"z"']

    def test_two_spaces_are_an_empty_cell_where_spaces_separate(self, write):
        with pytest.raises(UserError, match="2: has 3 cells, the header 2"):
            table_file.read(write("a b\n1  2\n"), Asked(" "))

    def test_packed(self, write):
        path = write(gzip.compress(b"a,b\n1,2\n"))
        assert texts_of(table_file.read(path)) == {"a": [1], "b": [2]}

    def test_numbers_kept_as_texts(self, write):
        table = table_file.read(write("zip,n\n10001,2\n"), texts={"zip"})
        assert texts_of(table) == {"zip": ["10001"], "n": [2]}

    @given(
        st.lists(
            st.tuples(*[st.floats(-(2.0**52), 2.0**52)] * 2), min_size=1, max_size=9
        ),
        st.sampled_from([(",", "."), (";", ","), ("\t", "."), ("|", ",")]),
        st.sampled_from([repr, "{:.20e}".format, "{:.17g}".format, "{:.12f}".format]),
        st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        st.booleans(),
    )
    @settings(deadline=None, max_examples=150, derandomize=True)
    def test_numbers_in_every_notation(
        self, write, rows, marks, notation, quoting, header
    ):
        delimiter, decimal = marks
        told = [
            [notation(value).replace(".", decimal) for value in row] for row in rows
        ]
        path = write([["a", "b"]] * header + told, delimiter=delimiter, quoting=quoting)
        table = table_file.read(path, Asked(delimiter, decimal))
        due = [[float(notation(value)) for value in row] for row in rows]
        assert [list(row) for row in zip(*texts_of(table).values())] == due


class TestFast:
    @given(
        st.lists(st.tuples(cells, words, odd | cells), min_size=1, max_size=20),
        st.sampled_from([(",", "."), (";", ",")]),
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_is_the_same_as_cell_by_cell(self, write, rows, marks):
        from jaxnn.experiment.data.tables import arrow_reader

        asked = Asked(*marks)
        path = write([("first", "second", "third"), *rows], delimiter=marks[0])
        exact = table_file.read(path, asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_file, "FAST_FROM", 0)
            patch.setattr(arrow_reader, "BLOCK_BYTES", 256)
            table = table_file.read(path, asked)
        assert table.dialect == exact.dialect
        for name, held in texts_of(table).items():
            for ours, theirs in zip(held, texts_of(exact)[name], strict=True):
                # pyarrow leaves numbers that it does not know, such as +5, as texts.
                assert ours == theirs or number(ours, marks[1]) == theirs

    def test_numbers_texts_and_digits(self, write, fast):
        rows = [(f"{n}.5", f"t{n % 3}", f"{n:04}", n * 10) for n in range(500)]
        table = fast(write([("n", "t", "zip", "whole"), *rows]))
        kinds = {name: type(held).__name__ for name, held in table.columns.items()}
        assert kinds == {
            "n": "Numbers",
            "t": "Texts",
            "zip": "Texts",
            "whole": "Numbers",
        }
        assert list(zip(*texts_of(table).values())) == [
            (float(n), t, z, float(w)) for n, t, z, w in rows
        ]

    def test_a_text_far_down(self, write, fast):
        rows = [(n, n) for n in range(300)] + [("x", 1)]
        assert texts_of(fast(write([("a", "b"), *rows])))["a"][-2:] == ["299", "x"]

    def test_without_a_header(self, write, fast):
        table = fast(write([(n, n + 0.5) for n in range(9)]))
        assert texts_of(table)["x1"] == [n + 0.5 for n in range(9)]

    @pytest.mark.parametrize("start", ["", "\n\n", "\ufeff"])
    @pytest.mark.parametrize("header", ["a, b\n", '"a\nx", b\n', "a, a\n"])
    def test_headers_as_cell_by_cell(self, write, monkeypatch, start, header):
        path = write(start + header + "1,2\n\n3,x\n")

        def read():
            try:
                return texts_of(table_file.read(path))
            except UserError as error:
                return str(error)

        exact = read()
        monkeypatch.setattr(table_file, "FAST_FROM", 0)
        assert read() == exact

    def test_quotes_behind_spaces_are_read_cell_by_cell(self, write, monkeypatch):
        monkeypatch.setattr(table_file, "FAST_FROM", 0)
        table = table_file.read(write('a, b\n1, "2.5"\n2, "3.5"\n'))
        assert texts_of(table) == {"a": [1, 2], "b": [2.5, 3.5]}

    def test_a_short_row_far_down_is_named(self, write, monkeypatch):
        monkeypatch.setattr(table_file, "FAST_FROM", 0)
        rows = [(n, n) for n in range(300)]
        with pytest.raises(
            UserError, match=r":302: has 1 cells, the header 2: 'a, b'$"
        ):
            table_file.read(write([("a", "b"), *rows, (1,)]))

    def test_beyond_float64_stays_text(self, write, fast):
        table = fast(write("a,b\n9007199254740993,1\n9007199254740992,2\n"))
        assert texts_of(table)["a"] == ["9007199254740993", "9007199254740992"]

    def test_small_files_do_not_import_pyarrow(self, write, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert np.isfinite(
            table_file.read(write("a,b\n1,2\n")).columns["a"].values
        ).all()

"""Tests of columns.py, notation.py and summary.py of data/tables."""

import numpy as np
import pytest

from jaxnn.experiment.data.tables import columns, summary, table_file
from jaxnn.experiment.data.tables.notation import looks_like
from jaxnn.experiment.errors import UserError

BIG = ["9007199254740992", "9007199254740993"]


@pytest.fixture
def read(tmp_path):
    """read(cells) -> table with them in column c."""

    def read(cells):
        path = tmp_path / "t.csv"
        path.write_text("c|y\n" + "".join(f"{cell}|1\n" for cell in cells))
        return table_file.read(path)

    return read


class TestIsNumeric:
    @pytest.mark.parametrize(
        ("cells", "answer"),
        [
            (["1", "2.5", "-3e5", "1e30"], True),
            (["x", "y"], False),
            (["02139", "10001", "94110"], False),
            (["00", "01"], False),
            (["02139", "10001", "10002", "n/a"], False),
            (["007", "3.5"], True),
            (["0", "10"], True),
            (["Nan", "Smith", "Jones"], False),
            (["Inf", "Smith", "Jones", "Nan"], False),
            (BIG, True),
        ],
    )
    def test_kinds(self, read, cells, answer):
        assert columns.is_numeric(read(cells), "c") is answer

    @pytest.mark.parametrize(
        ("cells", "problem"),
        [
            (["1", "2", "x"], r":4: column 'c' holds 'x', not a number as most"),
            (["1", "nan", "x"], r":3: column 'c' is nan, not a finite number; "),
            (["x", "", "y"], r":3: column 'c' is empty; fill it in"),
        ],
    )
    def test_odd_cells_are_named(self, read, cells, problem):
        with pytest.raises(UserError, match=problem):
            columns.is_numeric(read(cells), "c")


class TestLabels:
    def test_beyond_float64_stay_apart(self, read):
        found = columns.labels(read(BIG), "c")
        np.testing.assert_array_equal(found, np.array(BIG, np.int64), strict=True)

    @pytest.mark.parametrize(
        ("cells", "kind"), [(["1", "2"], "f"), (["01", "02"], "U"), (["1e30"], "f")]
    )
    def test_kinds(self, read, cells, kind):
        assert columns.labels(read(cells), "c").dtype.kind == kind


class TestMerged:
    def test_names_two_numbers(self, read):
        assert columns.merged(read(BIG), "c") == tuple(BIG)

    def test_nothing(self, read):
        assert columns.merged(read(["1", "2"]), "c") is None
        assert columns.merged(read([BIG[0], f"+{BIG[0]}"]), "c") is None


class TestLooksLike:
    @pytest.mark.parametrize(
        ("cells", "kind"),
        [
            (["1,234", "12,345,678", "5"], "a comma between thousands ('1,234')"),
            (["0,5", "12,25"], "a decimal comma ('0,5')"),
            (["5%", "12.5 %"], "percentages ('5%')"),
            (["$5", "$1,200.50"], "amounts of money ('$5')"),
            (["5 €", "7"], "amounts of money ('5 €')"),
            (["2024-01-05", "2024-01-06 12:00"], "dates ('2024-01-05')"),
            (["1/5/24", "12/31/2024"], "dates ('1/5/24')"),
            (["1_000", "2"], "numbers with underscores ('1_000')"),
            (["02139", "10001"], "digits with leading zeros ('02139')"),
            (["1.234.567", "2"], "a mark between thousands ('1.234.567')"),
            (["1", "\u22122.5"], "a dash for a minus ('\u22122.5')"),
            (["(1,234)", "7"], "negative numbers in parentheses ('(1,234)')"),
            (["0x1f", "0xA0"], "hexadecimal numbers ('0x1f')"),
            (["9:30", "17:05:10"], "times ('9:30')"),
        ],
    )
    def test_other_notations(self, cells, kind):
        assert kind in looks_like(cells, ".")

    @pytest.mark.parametrize("cells", [["red", "blue"], ["5%", "red"], ["A1", "B2"]])
    def test_texts(self, cells):
        assert looks_like(cells, ".") == ""


class TestLines:
    def test_one_a_column(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text(
            "0,5;02139;5%;red\n1,5;10001;7%;blue\n2,5;10002;9%;red\n3,5;1;5%;red\n"
        )
        table = table_file.read(path)
        assert summary.lines(table, "x3", ["x0", "x1", "x2"]) == [
            f"read {path}: 4 rows, 4 columns separated by semicolons, decimal commas; "
            "no header, the first line is read as data",
            "  x0: number",
            "  x1: text of 4 values; they look like digits with leading zeros "
            "('02139'); to train on them as numbers, write them without the zeros",
            "  x2: text of 3 values; they look like percentages ('5%'); to train on "
            "them as numbers, write them without the sign",
            "  x3 (target): text of 2 values",
        ]

    def test_merged_numbers_are_a_note(self, read):
        *_, note = summary.lines(read(BIG), "y", ["c"])
        assert note.startswith(
            f"note: column 'c': {BIG[0]} and {BIG[1]} are one number in float64; "
        )

    def test_a_name_of_two_lines_is_on_one(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text('"a\nb",y\n1,2\n')
        assert summary.lines(table_file.read(path), "y", ["a\nb"])[1:] == [
            "  a\\nb: number",
            "  y (target): number",
        ]

    def test_many_columns_are_counted(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text(",".join(f"c{n}" for n in range(99)) + "\n" + "1," * 98 + "1\n")
        table = table_file.read(path)
        lines = summary.lines(table, "c98", [f"c{n}" for n in range(98)])
        assert lines[-1] == "  ... 99 columns in all, 99 of them numbers"
        assert len(lines) == 41

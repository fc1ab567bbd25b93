"""Tests of jaxnn/experiment/data/sources/csv_file.py."""

import csv as standard_csv
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data.sources.csv_file import csv
from jaxnn.experiment.data.tables.cells import number
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

FLOWERS = "length,colour,width,kind\n" + "".join(
    f"{place}.5,{'red' if place % 3 else 'blue'},{-place},"
    f"{'rose' if place % 2 else 'lily'}\n"
    for place in range(20)
)
cells = st.one_of(
    st.floats(-1e6, 1e6, width=32).map(str),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(
        lambda cell: number(cell) is None
    ),
)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def load(tmp_path):
    def from_text(content, **change):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return csv(Experiment(dataset="csv", data_path=str(path), **change))

    return from_text


def rows_of(data):
    return np.concatenate([data.train_inputs, data.test_inputs])


class TestCsv:
    def test_numbers_texts_and_classes(self, load):
        data = load(FLOWERS)
        assert data.feature_names == ("length", "colour=blue", "colour=red", "width")
        assert (data.task, data.class_names) == ("binary", ("lily", "rose"))
        for inputs, targets in (
            (data.train_inputs, data.train_targets),
            (data.test_inputs, data.test_targets),
        ):
            place = -inputs[:, 3]
            np.testing.assert_array_equal(inputs[:, 0], place + 0.5)
            np.testing.assert_array_equal(inputs[:, 2], place % 3 != 0)
            np.testing.assert_array_equal(inputs[:, 1], 1 - inputs[:, 2])
            due = (place % 2)[:, None].astype(np.float32)
            np.testing.assert_array_equal(targets, due, strict=True)
        assert sorted(-rows_of(data)[:, 3]) == list(range(20))
        assert (len(data.test_inputs), data.test_targets.sum()) == (4, 2)

    def test_another_target(self, load):
        data = load(FLOWERS, target="width")
        assert (data.task, data.class_names) == ("regression", ())
        assert data.feature_names == (
            "length",
            "colour=blue",
            "colour=red",
            "kind=lily",
            "kind=rose",
        )
        np.testing.assert_array_equal(
            data.train_targets[:, 0], 0.5 - data.train_inputs[:, 0]
        )

    def test_features(self, load):
        data = load(FLOWERS, features=(2, 0))
        assert data.feature_names == ("width", "length")
        assert data.description.ignored == ("colour", "kind")

    def test_a_category_that_training_lacks_is_zeros(self, load):
        content = "a,b,y\n" + "".join(
            f"{place},t{place},{place}.5\n" for place in range(20)
        )
        data = load(content)
        # 16 rows train, each with a text of its own.
        assert len(data.feature_names) == 1 + 16
        np.testing.assert_array_equal(data.train_inputs[:, 1:].sum(axis=1), np.ones(16))
        np.testing.assert_array_equal(data.test_inputs[:, 1:], np.zeros((4, 16)))

    @given(
        st.lists(
            st.tuples(
                st.floats(-(2.0**99), 2.0**99, width=32),
                st.text(max_size=5).map("x".__add__),
            ),
            min_size=5,
            max_size=20,
        )
    )
    @settings(deadline=None, max_examples=40, derandomize=True)
    def test_round_trip(self, tmp_path_factory, rows):
        path = tmp_path_factory.getbasetemp() / "round.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            standard_csv.writer(file).writerow(("n", "t", "y"))
            standard_csv.writer(file).writerows(
                (*row, place) for place, row in enumerate(rows)
            )
        data = csv(Experiment(dataset="csv", data_path=str(path), task="regression"))
        for inputs, targets in (
            (data.train_inputs, data.train_targets),
            (data.test_inputs, data.test_targets),
        ):
            for row, (place,) in zip(inputs, targets):
                value, text = rows[int(place)]
                assert row[0] == np.float32(value)
                name = f"t={text.strip()}"
                hot = [
                    data.feature_names[1 + column] for column in np.flatnonzero(row[1:])
                ]
                assert hot == ([name] if name in data.feature_names else [])


class TestDialects:
    def test_no_header_semicolons_and_decimal_commas(self, load):
        content = "".join(f"{n},5;{n * n},25;{n % 2}\n" for n in range(20))
        data = load(content)
        assert data.feature_names == ("x0", "x1")
        np.testing.assert_array_equal(
            data.train_inputs[:, 1], (data.train_inputs[:, 0] - 0.5) ** 2 + 0.25
        )
        assert data.notes[0].endswith(
            "20 rows, 3 columns separated by semicolons, decimal commas; no header, "
            "the first line is read as data"
        )

    def test_a_target_in_the_first_line_makes_it_the_header(self, load):
        years = "2019,2020\n" + "".join(f"{n},{n / 2}\n" for n in range(20))
        assert load(years).feature_names == ("x0",)
        assert load(years, target="2020").feature_names == ("2019",)

    def test_flags(self, load):
        content = "".join(f"{n}:{n},5:{n % 2}\n" for n in range(20))
        data = load(content, delimiter=":", decimal=",", noheader=True)
        np.testing.assert_array_equal(
            data.train_inputs[:, 1], data.train_inputs[:, 0] + 0.5
        )

    def test_labels_beyond_float64_stay_apart(self, load):
        content = "x,y\n" + "1,9007199254740992\n2,9007199254740993\n" * 9
        assert load(content).class_names == ("9007199254740992", "9007199254740993")

    def test_postcodes_and_the_surname_nan_are_texts(self, load):
        content = "zip,name,y\n" + "02139,Nan,1.5\n10001,Smith,2\n94110,Jones,3\n" * 5
        data = load(content)
        assert data.feature_names == (
            "zip=02139",
            "zip=10001",
            "zip=94110",
            "name=Jones",
            "name=Nan",
            "name=Smith",
        )
        assert "'02139'" in data.notes[1]

    def test_a_target_that_float32_merges_is_a_note(self, load):
        times = "".join(f"{n},{1_700_000_000 + 10 * n}\n" for n in range(30))
        *_, note = load("x,y\n" + times).notes
        assert note.startswith(
            "note: column 'y': 30 distinct values become 3 in float32, e.g. 1700000000 "
            "and 1700000010; "
        )


class TestAuto:
    @pytest.mark.parametrize(
        ("labels", "task", "names"),
        [
            (["no", "yes"] * 10, "binary", ("no", "yes")),
            (["a", "b", "c"] * 7, "multiclass", ("a", "b", "c")),
            ([0, 1] * 10, "binary", ("0", "1")),
            ([1, -1] * 10, "binary", ("-1", "1")),
            (["01", "02"] * 10, "binary", ("01", "02")),
            ([3, 7, 10] * 7, "multiclass", ("3", "7", "10")),
            ([0.5, 1] * 10, "regression", ()),
            (range(20), "regression", ()),
            ([*range(21)] * 3, "regression", ()),
            ([*range(20)] * 5, "multiclass", tuple(map(str, range(20)))),
        ],
    )
    def test_text_and_few_whole_numbers_are_classes(self, load, labels, task, names):
        data = load(
            "x,y\n"
            + "".join(f"{place},{label}\n" for place, label in enumerate(labels))
        )
        assert (data.task, data.class_names) == (task, names)
        assert data.train_targets.dtype == (
            np.int32 if task == "multiclass" else np.float32
        )

    def test_the_flag_decides(self, load):
        content = "x,y\n" + "".join(f"{place},{place % 2}\n" for place in range(20))
        assert load(content, task="multiclass").num_outputs == 2
        assert load(content, task="regression").class_names == ()


BAD = {
    "": "is empty; the first line must name the columns",
    "a,b\n": "has a header but no rows",
    "a,a\n1,2\n": "the header names column 'a' twice",
    "a,,b\n1,2,3\n": "column 1 of the header has no name: 'a,,b'",
    "y\n1\n2\n": (
        "has only the column 'y', and nothing to predict it from; say what separates "
        "the columns with --delimiter"
    ),
    "a,y\n1,2\n1\n": "3: has 1 cells, the header 2: 'a, y'",
    "a,y\n1,2\n\n1,2,3\n": "4: has 3 cells, the header 2: 'a, y'",
    "a,y\n1,2\n,2\n": "3: column 'a' is empty; fill it in or remove the row",
    "a,y\n,2\n,3\n": (
        "2: column 'a' is empty in all rows; fill it in, or remove the column"
    ),
    "a,y\n1,2\n1,\n": "3: column 'y' is empty; fill it in or remove the row",
    "a,y\n1,2\nnan,2\n": (
        "3: column 'a' is nan, not a finite number; correct it or remove the row"
    ),
    "a,y\n1,2\n-Inf,2\nz,1\n": (
        "3: column 'a' is -Inf, not a finite number; correct it or remove the row"
    ),
    "a,y\n1,2\n2,3\n1_0,3\n": (
        "4: column 'a' holds '1_0', not a number as most of its rows do; correct it"
    ),
    "a,y\n1,2.5\n1e39,2\n": (
        "3: column 'a' holds '1e39', not a finite number in float32's range"
    ),
    'a,y\n1,2\n"x,2\n': "3: not CSV: unexpected end of data",
    "a,y\n1,k\n2,k\n": (
        "all samples are of the class 'k'; there is nothing to tell apart"
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("content", BAD)
    def test_is_named_by_line_and_column(self, load, tmp_path, content):
        place = (
            f"{tmp_path / 'table.csv'}:" if "all samples" not in BAD[content] else ""
        )
        with pytest.raises(
            UserError, match=rf"^--data_path: {place} ?{re.escape(BAD[content])}$"
        ):
            load(content)

    def test_not_utf8_names_the_byte(self, load):
        with pytest.raises(
            UserError, match=r"^--data_path: .*table\.csv: not UTF-8 at byte 4; convert"
        ):
            load(b"a,y\n\xff,2\n")

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("a,b\n1,2\n".encode("utf-16"), "is UTF-16; convert it to UTF-8"),
            ("a,b\n1,2\n".encode("utf-16-le"), "holds NUL bytes; if it is UTF-16"),
            (b"PK\x03\x04\x14\0", "is a zip archive, as .xlsx files are"),
            (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ],
    )
    def test_what_is_no_text_says_what_it_is(self, load, content, problem):
        with pytest.raises(UserError, match=rf"^--data_path: \S+: {problem}"):
            load(content)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(
            UserError,
            match=rf"^--data_path: cannot read {tmp_path}/no\.csv: No such file",
        ):
            csv(Experiment(dataset="csv", data_path=f"{tmp_path}/no.csv"))

    def test_names_of_two_lines_are_listed_on_one(self, load):
        with pytest.raises(UserError, match=r"it has a\\nb, y$"):
            load('"a\nb",y\n1,2\n', target="z")

    def test_a_missing_target_lists_the_columns(self, load):
        with pytest.raises(
            UserError,
            match=r"^--target: .*table\.csv has no column 'age'; it has length, "
            "colour, "
            r"width, kind$",
        ):
            load(FLOWERS, target="age")

    def test_features_out_of_range(self, load):
        with pytest.raises(
            UserError,
            match="^--features: column 3 asked for, --dataset=csv has 3, numbered "
            "from 0: "
            r"length, colour, width$",
        ):
            load(FLOWERS, features=(0, 3))

    def test_features_named_twice(self, load):
        with pytest.raises(UserError, match=r"^--features: column 1 is named twice$"):
            load(FLOWERS, features=(1, 0, 1))

    @pytest.mark.parametrize(
        ("label", "task", "problem"),
        [
            ("-1", "auto", "the label -1, which is negative"),
            (f"{2**70}", "auto", "the label .*, which is beyond 64 bits"),
            ("1.5", "binary", "the label 1.5, which is not whole"),
            ("1.5", "multiclass", "the label 1.5, which is not whole"),
        ],
    )
    def test_labels_that_are_no_classes(self, load, label, task, problem):
        content = "x,y\n" + "1,1\n2,0\n" * 5 + f"3,{label}\n"
        with pytest.raises(
            UserError,
            match=rf"^--data_path: .*table\.csv:12: column 'y' holds {problem}; ",
        ):
            load(content, task=task)

    def test_three_classes_are_not_binary(self, load):
        with pytest.raises(
            UserError,
            match=r"^--task: binary needs two classes, got 3: a, b, c; use "
            "multiclass, or",
        ):
            load("x,y\n" + "1,a\n2,b\n3,c\n" * 5, task="binary")

    def test_text_is_no_regression(self, load):
        with pytest.raises(
            UserError,
            match=r"table\.csv:2: column 'kind' holds 'lily', text; "
            "--task=regression needs",
        ):
            load(FLOWERS, task="regression")

    def test_too_many_texts(self, load):
        content = "name,y\n" + "".join(f"n{place},{place}\n" for place in range(1300))
        with pytest.raises(
            UserError,
            match=r"^--features: column 'name' of .* has 1040 different texts, each an",
        ):
            load(content)

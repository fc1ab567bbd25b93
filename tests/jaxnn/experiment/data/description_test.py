"""Tests of jaxnn/experiment/data/description.py."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxnn.experiment.data.description import (
    Column,
    Description,
    encode_rows,
    from_json,
    read_rows,
    to_json,
)
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

HEADER = "length,colour,width,kind\n"
ROWS = [
    f"{place}.25,{'red' if place % 3 else 'blue'},{place * 7 % 5},"
    f"{'rose' if place % 2 else 'lily'}\n"
    for place in range(20)
]
TABLE = Description(
    "binary",
    ("no", "yes"),
    (Column("a"), Column("b", ("x", "y"))),
    "t",
    ("t",),
    (3,),
    HostScaling(np.array([1.0, 0, 0]), np.array([2.0, 1, 1])),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    def write(content, name="rows.csv"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write


def load(path, **change):
    return load_dataset(
        Experiment(
            dataset="csv",
            data_path=str(path),
            loss="binary_cross_entropy",
            batch_size=4,
            **change,
        )
    )


def encode(description, path):
    return encode_rows(description, read_rows(description, path))


def assert_same(one, two):
    assert one._replace(scaling=None) == two._replace(scaling=None)
    assert type(one.scaling) is type(two.scaling)
    for ours, theirs in zip(one.scaling or (), two.scaling or ()):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def places_in(entries, before=()):
    """Paths to all values in JSON."""
    items = entries.items() if isinstance(entries, dict) else enumerate(entries)
    for place, value in items:
        yield (*before, place)
        if isinstance(value, dict | list):
            yield from places_in(value, (*before, place))


ODD = st.sampled_from(
    [None, 5, -1, 1.5, True, "x", "a", [], [1], ["x"], [[1.0]], {}, {"a": 1}, 10**400]
)


class TestJson:
    @given(
        arrays(
            np.float64, 3, elements=st.floats(allow_nan=False, allow_infinity=False)
        ),
        st.lists(st.text(), max_size=3),
    )
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_round_trip_to_the_bit(self, offset, texts):
        rest = [Column(f"{n}") for n in range(3 - max(1, len(texts)))]
        described = TABLE._replace(
            scaling=HostScaling(offset, offset),
            class_names=tuple(texts),
            columns=(Column("n", tuple(texts)), *rest),
        )
        assert_same(from_json(to_json(described)), described)

    @pytest.mark.parametrize(
        "experiment",
        [
            Experiment(batch_size=4),
            Experiment(dataset="digits", loss="cross_entropy", preprocess="min_max"),
            Experiment(dataset="text", loss="cross_entropy", model="transformer"),
            Experiment(dataset="sine"),
        ],
    )
    def test_round_trip_of_data_sets(self, experiment):
        described = load_dataset(experiment).description
        assert_same(from_json(to_json(described)), described)

    def test_scaling_of_bytes_stays_float32(self):
        described = TABLE._replace(
            scaling=Scaling(np.float32([0.1]), np.float32([1 / 255]))
        )
        assert_same(from_json(to_json(described)), described)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            to_json(TABLE)[:-9],
            to_json(TABLE).replace('"format": 1', '"format": 2'),
            json.dumps({"format": 1}),
            to_json(TABLE).replace('"task"', '"tusk"'),
            to_json(TABLE).replace("host", "moon"),
            "[" * 100_000,
        ],
    )
    def test_anything_else_is_named(self, text):
        with pytest.raises(
            UserError,
            match=r"^a/data\.json: does not describe data \([^\n]*\); train again",
        ):
            from_json(text, "a/data.json")

    @given(st.data())
    @settings(deadline=None, max_examples=150, derandomize=True)
    def test_any_other_value_is_refused_or_of_use(self, tmp_path_factory, data):
        """What is accepted encodes rows."""
        entries = json.loads(to_json(TABLE))
        *places, last = data.draw(st.sampled_from(list(places_in(entries))))
        block = entries
        for place in places:
            block = block[place]
        block[last] = data.draw(ODD)
        path = tmp_path_factory.getbasetemp() / "odd.csv"
        path.write_text("a,b\n1,x\n")
        with contextlib.suppress(UserError):
            encode(from_json(json.dumps(entries)), path)


class TestEncodeRows:
    @pytest.mark.parametrize("preprocess", ["none", "standardize", "min_max"])
    @pytest.mark.parametrize("features", [(), (2, 1)])
    def test_the_training_file_gives_the_training_inputs_to_the_bit(
        self, write, preprocess, features
    ):
        data = load(
            write(HEADER + "".join(ROWS)), preprocess=preprocess, features=features
        )
        inputs = encode(
            from_json(to_json(data.description)), write(HEADER + "".join(ROWS))
        )
        assert inputs.dtype == np.float32
        assert sorted(map(bytes, inputs)) == sorted(
            map(bytes, np.concatenate([data.train_inputs, data.test_inputs]))
        )

    def test_columns_in_another_order_without_the_target(self, write):
        data = load(write(HEADER + "".join(ROWS)), preprocess="standardize")
        ordered = encode(data.description, write(HEADER + ROWS[0]))
        other = encode(data.description, write("colour,width,length\nblue,0,0.25\n"))
        np.testing.assert_array_equal(ordered, other, strict=True)

    def test_formula(self, write):
        np.testing.assert_array_equal(
            encode(TABLE, write("b,a\ny,5\nz,1\n")), [[2, 0, 1], [0, 0, 0]]
        )

    def test_shapes(self, write):
        pixels = TABLE._replace(
            columns=tuple(map(Column, "abcd")), input_shape=(2, 2, 1), scaling=None
        )
        assert encode(pixels, write("a,b,c,d\n1,2,3,4\n")).tolist() == [
            [[[1], [2]], [[3], [4]]]
        ]

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("a\n1\n", ": column 'b' is missing; the network was trained on a, b"),
            (
                "a,b,c\n1,x,2\n",
                ": column 'c' is unknown; the network was trained on a, b",
            ),
            (
                "a,b\n1,x\n?,x\n",
                r":3: column 'a' holds '\?', not a finite number in float32's range",
            ),
            ("a,b\n\n,x\n", ":3: column 'a' is empty; fill it in or remove the row"),
            ("a,b\n1,x\n2,\n", ":3: column 'b' is empty; fill it in or remove the row"),
            ("a,b\n1\n", ":2: has 1 cells, the header 2: 'a, b'"),
            ("a,b\n", ": has a header but no rows"),
            ("", ": is empty; .*"),
        ],
    )
    def test_unreadable_rows_are_named(self, write, content, problem):
        path = write(content)
        with pytest.raises(UserError, match=rf"^--data_path: {path}{problem}$"):
            encode(TABLE, path)

    def test_beyond_float32_once_scaled(self, write):
        tiny = TABLE._replace(scaling=HostScaling(np.zeros(3), np.full(3, 1e-30)))
        with pytest.raises(
            UserError, match=r"rows\.csv:3: is beyond float32's range once scaled$"
        ):
            encode(tiny, write("a,b\n0,z\n1e20,x\n"))

    def test_text_is_no_table(self, write):
        data = load_dataset(Experiment(dataset="sine"))
        with pytest.raises(
            UserError, match=r"^--data_path: these inputs are not rows of a table; "
        ):
            encode(data.description, write("a\n1\n"))

"""Tests of jaxnn/experiment/flags/options.py: whatever is written after a flag."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data import batches
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment

FIELDS = dataclasses.fields(Experiment)
NUMBERS = {
    int: st.integers() | st.integers(0, 2**33) | st.integers(-2, 100),
    float: st.floats() | st.floats(0, 2) | st.integers(-10, 10**400),
}
EXTREMES = [
    "1e-300",
    "1e39",
    "1e400",
    "-0.0",
    "0.999999999",
    "1" + 5000 * "0",
    "2147483648",
    300 * "a",
    3000 * "a/",
    "../../up",
    "a\0b",
    "a\nb",
    "\udcff",
    "",
    " ",
    ",",
]


def texts_for(field):
    """Numbers of the flag's kind, and what is no number at all."""
    others = st.text(max_size=20) | st.sampled_from(EXTREMES)
    if isinstance(field.default, tuple):
        kind = float if field.name == "dropout_rates" else int
        return st.lists(NUMBERS[kind], max_size=3).map(joined) | others
    if type(field.default) not in NUMBERS:
        return others
    return NUMBERS[type(field.default)].map(str) | others


def joined(numbers):
    return ",".join(map(str, numbers))


def said_by(text, field):
    """Runs what a program does with its flags; returns its complaint."""
    try:
        experiment, _ = command_line.parse(["", f"--{field.name}={text}"], "fp32")
        batches.total_steps(experiment, num_samples=10)
    except UserError as error:
        return str(error)
    return ""


class TestEveryFlag:
    @pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
    @given(data=st.data())
    @settings(deadline=None, max_examples=12, derandomize=True, database=None)
    def test_is_taken_or_named_in_one_line(self, field, data):
        said = said_by(data.draw(texts_for(field)), field)
        assert not said or f"--{field.name}" in said
        assert len(said.splitlines()) <= 1


class TestPaths:
    @pytest.mark.parametrize("name", ["../../up", "a/b", "..", 201 * "a"])
    def test_a_name_stays_in_its_folder(self, name):
        with pytest.raises(
            UserError, match=r"^--name: .* cannot be part of a folder's"
        ):
            command_line.parse(["", f"--name={name}"], "fp32")

    @pytest.mark.parametrize("field", [f for f in FIELDS if f.metadata["path"]])
    def test_too_long_for_a_file_system(self, field):
        for text in ("./" + 256 * "c", 1400 * "ab/"):
            path = f"{text}.py:Net" if field.name == "model" else text
            with pytest.raises(UserError, match=f"^--{field.name}: .*[Tt]oo long"):
                command_line.parse(["", f"--{field.name}={path}"], "fp32")


class TestNumbers:
    @pytest.mark.parametrize("value", [2.0**-140, 10**40, 10**400, -(10.0**39)])
    def test_beyond_float32_even_from_a_ds_config(self, value):
        with pytest.raises(UserError, match=r"^--l2: .* is outside float32's range"):
            options.check_ranges(Experiment(l2=value))

    def test_a_rate_that_float32_rounds_to_one(self):
        with pytest.raises(UserError, match=r"^--momentum: 0\.999999999 is 1 in float"):
            options.check_ranges(Experiment(momentum=0.999999999))

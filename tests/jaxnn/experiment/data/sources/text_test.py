"""Tests of jaxnn/experiment/data/sources/text.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data.sources.text import UNKNOWN, encode, text, windows
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

EXPERIMENT = Experiment(dataset="text", sequence_length=10, validation_fraction=0.2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "text.txt"


def decode(vocabulary: tuple[str, ...], tokens: np.ndarray) -> str:
    """The text of [n] tokens; an unknown character is U+FFFD."""
    return "".join(
        "\ufffd" if vocabulary[token] == UNKNOWN else vocabulary[token]
        for token in tokens
    )


class TestText:
    def test_help_topics(self):
        data = text(Experiment(dataset="text"))
        assert (data.task, data.signature.per_step, data.signature.input_shape) == (
            "language",
            True,
            (50,),
        )
        assert (
            data.signature.num_tokens
            == data.signature.num_outputs
            == len(data.class_names)
        )
        assert 'The "assert" statement' in decode(
            data.class_names, data.train_inputs.ravel()
        )
        assert len(data.train_inputs) > 1000

    def test_splits_follow_one_another(self, path):
        # Each character tells its place.
        content = "".join(chr(0x4E00 + place) for place in range(300))
        path.write_text(content, encoding="utf-8")
        data = text(EXPERIMENT.replace(data_path=str(path)))
        assert data.class_names == (*content[:192], UNKNOWN)
        assert decode(data.class_names, data.train_inputs.ravel()) == content[:190]
        assert decode(data.class_names, data.train_targets.ravel()) == content[1:191]
        # All characters are unknown.
        assert set(np.append(data.validation_inputs, data.test_targets)) == {192}
        assert [
            len(x)
            for x in (data.train_inputs, data.validation_inputs, data.test_inputs)
        ] == [19, 4, 5]
        assert data.train_inputs.dtype == data.train_targets.dtype == np.int32

    def test_a_byte_order_mark_is_no_character(self, path):
        path.write_bytes(b"\xef\xbb\xbf" + b"abc" * 100)
        assert text(EXPERIMENT.replace(data_path=str(path))).class_names == (
            "a",
            "b",
            "c",
            UNKNOWN,
        )

    def test_not_utf8_names_the_byte(self, path):
        path.write_bytes(b"caf\xe9 " * 100)
        with pytest.raises(
            UserError, match=rf"^--data_path: {path}: not UTF-8 at byte 3; convert"
        ):
            text(EXPERIMENT.replace(data_path=str(path)))

    def test_a_missing_file_is_named(self, path):
        with pytest.raises(
            UserError,
            match=rf"^--data_path: cannot read {path}: No such file or directory$",
        ):
            text(EXPERIMENT.replace(data_path=str(path)))

    @pytest.mark.parametrize(
        ("length", "split"),
        [(0, "training"), (15, "training"), (40, "validation"), (50, "test")],
    )
    def test_shorter_than_the_context(self, path, length, split):
        path.write_text("x" * length)
        fraction = 0.3 if split == "test" else 0.2
        with pytest.raises(
            UserError,
            match=rf"^--sequence_length: {path} has \d+ characters for the {split} "
            r"split; a window and the character after it need 11; give",
        ):
            text(EXPERIMENT.replace(data_path=str(path), validation_fraction=fraction))


class TestWindows:
    @given(length=st.integers(0, 100), steps=st.integers(1, 20))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_end_to_end_and_one_further_on(self, length, steps):
        inputs, targets = windows(np.arange(length), steps)
        np.testing.assert_array_equal(inputs.ravel(), np.arange(len(inputs) * steps))
        np.testing.assert_array_equal(targets, inputs + 1)
        assert (
            length - steps
            <= (len(inputs) * steps + 1 if len(inputs) else 0)
            <= max(length, 0)
        )


class TestEncode:
    @given(st.text(max_size=50))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_decode_takes_it_back(self, content):
        vocabulary = (*sorted(set(content)), UNKNOWN)
        assert decode(vocabulary, encode(vocabulary, content)) == content

    def test_unknown_characters(self):
        np.testing.assert_array_equal(encode(("a", "b", UNKNOWN), "bxa"), [1, 2, 0])
        assert decode(("a", "b", UNKNOWN), np.array([1, 2, 0])) == "b\ufffda"

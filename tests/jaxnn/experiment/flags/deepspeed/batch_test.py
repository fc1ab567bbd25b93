"""Tests of jaxnn/experiment/flags/deepspeed/batch.py: the sizes are those of
DeepSpeed's arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from tests.jaxnn.experiment.flags.deepspeed.entries import fast


class TestBatch:
    SIZES = st.one_of(st.none(), st.integers(1, 12))

    @given(st.one_of(st.none(), st.integers(1, 96)), SIZES, SIZES, st.integers(1, 4))
    @fast
    def test_is_deepspeeds_arithmetic(self, read, theirs, train, micro, parts, ranks):
        sizes = {
            "train_batch_size": train,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": parts,
        }
        entries = {key: value for key, value in sizes.items() if value is not None}
        try:
            expected = theirs(entries, ranks)
        except AssertionError:
            with pytest.raises(
                UserError, match=r"^--ds_config: .*train_(micro_)?batch_size"
            ):
                read(entries, f"--num_devices={ranks}")
            return
        experiment, _ = read(entries, f"--num_devices={ranks}")
        assert experiment.batch_size == expected.train_batch_size
        assert experiment.accumulation_steps == expected.gradient_accumulation_steps

    def test_ranks_of_the_launcher(self, read, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        entries = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 32}
        assert read(entries)[0].accumulation_steps == 1

    def test_flags_complete_what_is_missing(self, read):
        experiment, _ = read(
            {"train_micro_batch_size_per_gpu": 8}, "--accumulation_steps=4"
        )
        assert (experiment.batch_size, experiment.accumulation_steps) == (32, 4)

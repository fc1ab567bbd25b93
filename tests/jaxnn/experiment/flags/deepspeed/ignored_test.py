"""Keys without a meaning in JAX: they are listed in a note and change nothing."""

import pytest

from jaxnn.experiment.flags.deepspeed import keys
from tests.jaxnn.experiment.flags.deepspeed.entries import SILENT, TUTORIAL, nested


class TestIgnored:
    @pytest.mark.parametrize(
        "key",
        [
            key
            for key in keys.IGNORED
            if f"{key}.enabled" not in keys.REQUIRED
            and key not in ("tensor_parallel", "optimizer.legacy_fusion")
        ],
    )
    def test_is_named_and_changes_nothing(self, read, key):
        plain, before = read(SILENT)
        for value in (7, {"anything": {"at": ["all"]}}):
            experiment, notes = read(nested(key, value))
            assert experiment == plain
            assert [note for note in notes if note not in before] == [
                f"note: --ds_config: ignored, without a meaning in JAX: {key}"
            ]

    def test_in_a_block_that_is_read_or_off(self, read):
        entries = {
            **SILENT,
            "optimizer": {"type": "AdamW", "legacy_fusion": True},
            "amp": {"opt_level": "O1"},
        }
        experiment, notes = read(entries)
        assert experiment == read({**SILENT, "optimizer": {"type": "AdamW"}})[0]
        assert (
            "note: --ds_config: ignored, without a meaning in JAX: "
            "optimizer.legacy_fusion, amp" in notes
        )

    def test_notes_come_from_the_first_rank_alone(self, read, monkeypatch):
        assert read(TUTORIAL)[1]
        monkeypatch.setenv("RANK", "1")
        assert read(TUTORIAL)[1] == []

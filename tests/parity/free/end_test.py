"""Tests of parity/free/end.py."""

import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from parity.free.end import outcome, read

SUMMARY = {
    "train_loss": 0.5,
    "test_loss": 0.25,
    "steps": 8,
    "skipped_steps": 1,
    "train_seconds": 1.0,
    "final": {"accuracy": 0.75, "correct": 3, "positive_class": "a", "perplexity": 3.0},
}
PARAMS = {"output/kernel": np.ones((2, 1), np.float32)}


class TestOutcome:
    def test_takes_losses_counts_metrics_and_tensors(self):
        # Without restated metrics, entries that are no floats, and durations.
        found = outcome(PARAMS, {"norm/mean": np.zeros(2, np.float32)}, SUMMARY)
        assert {name: array.tolist() for name, array in found.items()} == {
            "train_loss": 0.5,
            "test_loss": 0.25,
            "steps": 8,
            "skipped_steps": 1,
            "final/accuracy": 0.75,
            "params/output/kernel": [[1], [1]],
            "batch_stats/norm/mean": [0, 0],
        }
        assert {array.dtype.name for array in found.values()} == {"float64"}


class TestRead:
    def write(self, workdir):
        artifacts.write_summary(workdir, SUMMARY)
        artifacts.write_params(workdir / artifacts.PARAMS, PARAMS)

    @pytest.mark.parametrize("stats", [{}, {"norm/mean": np.zeros(2, np.float32)}])
    def test_reads_what_a_run_wrote(self, tmp_path, stats):
        self.write(tmp_path)
        if stats:
            artifacts.write_params(tmp_path / artifacts.BATCH_STATS, stats)
        found = read(tmp_path)
        expected = outcome(PARAMS, stats, SUMMARY)
        assert found.keys() == expected.keys()
        assert all((found[name] == array).all() for name, array in expected.items())

    @pytest.mark.parametrize("missing", [artifacts.SUMMARY, artifacts.PARAMS])
    def test_names_what_is_missing(self, tmp_path, missing):
        self.write(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(UserError, match=f"cannot judge: .*{missing}"):
            read(tmp_path)

    def test_names_a_summary_that_lacks_something(self, tmp_path):
        self.write(tmp_path)
        artifacts.write_summary(tmp_path, {"final": {}})
        with pytest.raises(
            UserError, match=r"cannot judge: .*summary\.json lacks 'train_loss'"
        ):
            read(tmp_path)

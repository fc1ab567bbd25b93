"""Tests of parity/judging/third_opinion.py: what the oracle is not asked about. What it
says is tested in run_test.py."""

import pytest

from jaxnn.experiment.flags.config import Experiment
from parity.judging.measure import Measurement
from parity.judging.third_opinion import vote

OWN_STATISTICS = Experiment(num_devices=2, sync_batch_norm=False)


class TestVote:
    @pytest.mark.parametrize(
        ("experiment", "quantity"),
        [
            (Experiment(), "skipped"),
            (OWN_STATISTICS, "grads"),
            (OWN_STATISTICS, "batch_stats"),
        ],
    )
    def test_has_no_opinion(self, experiment, quantity):
        assert (
            vote(experiment, None, None, {}, {}, Measurement(0, quantity, "", 9.0, 0.0))
            is None
        )

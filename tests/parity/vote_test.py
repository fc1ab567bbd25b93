"""Tests of parity/vote.py: what the oracle is not asked about. What it says is tested in run_test.py."""

import pytest

from jaxnn.experiment.config import Experiment
from parity.compare import Measurement
from parity.vote import vote

OWN_STATISTICS = Experiment(num_devices=2, sync_batch_norm=False)


class TestVote:
    @pytest.mark.parametrize(("experiment", "quantity"), [
        (Experiment(), "skipped"), (OWN_STATISTICS, "grads"), (OWN_STATISTICS, "batch_stats")])
    def test_has_no_opinion(self, experiment, quantity):
        assert vote(experiment, None, None, {}, {}, Measurement(0, quantity, "", 9.0, 0.0)) is None

"""Tests of jaxnn/experiment/early_stopping.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.early_stopping import EarlyStopping


def run(losses, patience, min_delta=0.0):
    """(epochs done, best epoch)."""
    stopping = EarlyStopping(patience, min_delta)
    for epoch, loss in enumerate(losses):
        if not stopping.improves(loss) and stopping.is_over:
            return epoch + 1, stopping.best_epoch
    return len(losses), stopping.best_epoch


class TestEarlyStopping:
    @pytest.mark.parametrize(
        ("losses", "patience", "taken", "best"),
        [
            ([3, 2, 1], 1, 3, 2),
            ([1, 2, 0], 1, 2, 0),
            ([1, 2, 0.5, 2, 2], 2, 5, 2),
            ([1, 1, 1, 1], 3, 4, 0),
            ([2, float("nan"), 1], 2, 3, 2),
        ],
    )
    def test_stops_after_patience_epochs_without_a_better_one(
        self, losses, patience, taken, best
    ):
        assert run(losses, patience) == (taken, best)

    def test_min_delta_is_how_much_better(self):
        assert run([1, 0.95, 0.9, 0.85, 0.8], 2, min_delta=0.1) == (3, 0)
        assert run([1, 0.875, 0.75], 1, min_delta=0.0625) == (3, 2)

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5))
    @settings(deadline=None, derandomize=True)
    def test_the_best_is_the_first_lowest_of_what_was_seen(self, losses, patience):
        taken, best = run(losses, patience)
        assert best == int(np.argmin(losses[:taken]))
        assert taken == len(losses) or taken == best + patience + 1

"""Tests of jaxnn/experiment/results/epoch_times.py."""

import pytest

from jaxnn.experiment.results import epoch_times


@pytest.fixture
def at(monkeypatch):
    """at(seconds): sets the clock."""

    def set_clock(seconds):
        monkeypatch.setattr(epoch_times.time, "perf_counter", lambda: seconds)

    return set_clock


@pytest.fixture
def times(at):
    times = epoch_times.EpochTimes()
    at(100.0)
    times.start()
    return times


class TestEpochTimes:
    def test_compiling_does_not_count(self, at, times):
        at(103.0)
        times.end(1, compiled=2.5)
        at(104.0)
        times.end(1, compiled=2.5)
        assert times.seconds == [0.5, 1.0]
        assert times.line() == "epochs: 2 in 1.50 s, 750 ms each (median)"

    def test_epochs_of_one_call_share_its_time(self, at, times):
        at(101.0)
        times.end(1, 0.0)
        # They are read one after the other, long after all of them have run.
        for now in (101.5, 101.5, 101.75, 102.0):
            at(now)
            times.end(4, 0.0)
        assert times.seconds == [1.0] + [0.25] * 4
        assert times.line() == "epochs: 5 in 2.00 s, 250 ms each (median)"

    def test_seconds_where_an_epoch_takes_them(self, at, times):
        for now in (110.0, 123.0):
            at(now)
            times.end(1, 0.0)
        assert times.line() == "epochs: 2 in 23.00 s, 11.5 s each (median)"

    def test_one_epoch_needs_no_median(self, at, times):
        at(100.5)
        times.end(1, 0.0)
        assert times.line() == "epochs: 1 in 0.50 s"

"""An epoch that repeats the order of the one before."""

import pytest

from parity.own import epochs
from tests.parity.own.small_net import port_of, record

PERIODS = {
    "abcabc": 3,
    "abcab": 3,
    "abca": None,
    "abcacb": None,
    "aaaa": 1,
    "abcdef": None,
    "abababab": 2,
    "aabaab": None,
}


@pytest.mark.parametrize("batches", PERIODS)
def test_period(batches):
    assert epochs.period([batch.encode() for batch in batches]) == PERIODS[batches]


def test_a_recording_whose_epochs_are_alike(tmp_path):
    port = port_of(record(tmp_path / "t", batch=lambda step, part: step % 3))
    assert epochs.note(port.ported) == (
        "steps 3 to 4 have the samples of steps 0 to 1, in the same order: an epoch "
        "that repeats the one before (MISMATCHES D11)"
    )


def test_a_recording_of_other_samples(tmp_path):
    assert epochs.note(port_of(record(tmp_path / "t")).ported) is None

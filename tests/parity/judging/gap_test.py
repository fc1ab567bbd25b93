import numpy as np
import pytest

from parity.judging.gap import gap

F32 = np.float32


@pytest.mark.parametrize(
    ("recorded", "expected", "text"),
    [
        (F32(0.2), F32(0.1), "0.2, 0.1 expected"),
        (np.bool_(True), np.bool_(False), "True, False expected"),
        (np.int32(3), np.int64(3), "int32, int64 expected"),
        (np.zeros(3), np.zeros((3, 1)), "of shape (3,), (3, 1) expected"),
        (
            np.array([4, 7, 9]),
            np.array([4, 9, 7]),
            "2 of 3 entries differ, the first is 7, 9 expected",
        ),
        (
            np.array([3.0, 4.5], F32),
            np.array([3.0, 4.0], F32),
            "1 of 2 entries differ, by 1.0e-01 of the whole",
        ),
        (
            np.array([np.nan, 1, np.inf], F32),
            np.ones(3, F32),
            "2 of 3 entries are not finite",
        ),
        (np.array([-0.0]), np.array([0.0]), "zeros of the other sign"),
        (
            np.array([1.0]),
            np.array([0.0]),
            "1 of 1 entries differ, by 1.0e+00 of the whole",
        ),
    ],
)
def test_gap(recorded, expected, text):
    assert gap(np.asarray(recorded), np.asarray(expected)) == text

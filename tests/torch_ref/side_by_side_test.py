"""The five operations against numbers by hand."""

import numpy as np

from jaxnn.experiment.files import artifacts
from torch_ref import side_by_side


def given() -> dict[str, np.ndarray]:
    return {
        "x": np.array([1.0, 2.0]),
        "y": np.array([3.0, 5.0]),
        "a": np.array([[2.0, 0.0], [0.0, 4.0]]),
        "b": np.array([[0.0, 1.0], [1.0, 0.0]]),
        "v": np.zeros((2, 1)),
        "w": np.array([[3.0]]),
    }


def test_by_hand():
    found = side_by_side.results(given())
    assert found["dot"] == 13
    assert found["matmul"].tolist() == [[0, 2], [4, 0]]
    assert found["broadcast"].tolist() == [[9, 6], [5, 30]]
    assert found["solve"].tolist() == [0.5, 0.5]
    assert found["gradient"].tolist() == [[0], [0]]


def test_gradient_by_hand():
    """One row, 1: mean of (3 tanh v)^2 has the derivative 18 tanh v (1 - tanh^2 v)."""
    v = 0.5
    arrays = given() | {"b": np.array([[1.0]]), "v": np.array([[v]])}
    arrays |= {"a": np.eye(1), "x": np.ones(1), "y": np.ones(1)}
    expected = 18 * np.tanh(v) * (1 - np.tanh(v) ** 2)
    found = side_by_side.results(arrays)["gradient"].item()
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_reads_one_file_and_writes_the_other(tmp_path):
    artifacts.write_arrays(tmp_path / "given", given())
    side_by_side.main(str(tmp_path / "given"), str(tmp_path / "results"))
    written = artifacts.read_arrays(tmp_path / "results", "RESULTS")
    assert written["dot"] == 13

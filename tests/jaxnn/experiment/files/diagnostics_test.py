"""Tests of jaxnn/experiment/files/diagnostics.py."""

import numpy as np
import pytest

from jaxnn.experiment.diagnosis import MEASURED, NETWORK
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, diagnostics
from jaxnn.experiment.files.diagnostics import Diagnosis

LAYERS = ["hidden_0", "output"]


def table(first: float) -> np.ndarray:
    values = np.arange(3 * len(MEASURED), dtype=np.float32).reshape(3, -1) + first
    values[0, 4:] = np.nan
    return values


@pytest.fixture
def workdir(tmp_path):
    writer = diagnostics.DiagnosticsWriter(tmp_path, LAYERS)
    for epoch in (1, 2, 3):
        writer.write(epoch, Diagnosis(10 * epoch, table(epoch), 8.0), epoch, 0.5)
    return tmp_path


def test_what_is_written_is_read(workdir):
    found = diagnostics.read(workdir)
    assert found is not None
    assert found.layers == [NETWORK, *LAYERS]
    assert list(found.epochs) == [1, 2, 3]
    assert list(found.of_network["skipped"]) == [1, 2, 3]
    whole = np.stack([found.measured[name] for name in MEASURED], axis=-1)
    assert np.array_equal(
        whole, np.stack([table(n) for n in (1, 2, 3)]), equal_nan=True
    )
    assert found.last("gradient_norm") == {"hidden_0": 11.0, "output": 19.0}


def test_a_run_without_has_none(tmp_path):
    assert diagnostics.read(tmp_path) is None


def test_what_overflowed_is_written_as_it_is(tmp_path):
    values = table(0)
    values[1, 0] = np.inf
    writer = diagnostics.DiagnosticsWriter(tmp_path, LAYERS)
    writer.write(1, Diagnosis(0, values, 8.0), 1, np.nan)
    found = diagnostics.read(tmp_path)
    assert found is not None
    assert found.last("gradient_norm")["hidden_0"] == np.inf
    assert np.isnan(found.of_network["loss_gap"][0])


def test_a_resumed_run_drops_later_epochs(workdir):
    diagnostics.keep(workdir, 1)
    found = diagnostics.read(workdir)
    assert found is not None
    assert list(found.epochs) == [1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,10,hidden_0", "x,10,hidden_0", "csv:3: not a row"),
        ("1,10,hidden_0,", "1,10,hidden_0,,", "csv:3: not a row"),
        ("epoch,", "era,", "csv:2: not a row"),
        ("2,20,output", "2,20,hidden_1", "rows are missing"),
    ],
)
def test_names_the_row_that_is_damaged(workdir, old, new, message):
    path = workdir / artifacts.DIAGNOSTICS
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        diagnostics.read(workdir)

"""Tests of jaxnn/experiment/data/half_range.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXNN_CACHE", str(tmp_path / "cache"))

    def load(largest, **change):
        path = tmp_path / "t.csv"
        rows = "".join(f"{n},{largest * n / 20},{n}.5\n" for n in range(21))
        path.write_text("small,income,y\n" + rows)
        change = {"precision": "fp16"} | change
        return load_dataset(
            Experiment(dataset="csv", data_path=str(path), batch_size=4, **change)
        )

    return load


class TestChecked:
    @pytest.mark.parametrize("sign", [1, -1])
    def test_names_column_value_and_remedy(self, load, sign):
        with pytest.raises(
            UserError,
            match=r"^--precision: fp16 ends at 65504, and the input 'income' holds "
            rf"{'-' * (sign < 0)}\d+; use --preprocess=standardize$",
        ):
            load(1_000_000 * sign)

    @pytest.mark.parametrize(
        ("largest", "change"),
        [
            (1_000_000, {"preprocess": "standardize"}),
            (1_000_000, {"precision": "fp32"}),
            (1_000_000, {"precision": "bf16"}),
            (65_519, {}),
        ],
    )
    def test_passes(self, load, largest, change):
        data = load(largest, **change)
        if change.get("precision", "fp16") == "fp16":
            assert np.isfinite(data.train_inputs.astype(np.float16)).all()

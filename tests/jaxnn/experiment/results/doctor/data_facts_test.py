"""Tests of jaxnn/experiment/results/doctor/data_facts.py."""

import numpy as np

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.doctor import data_facts


def test_columns_are_the_same_in_blocks_of_any_size(monkeypatch):
    wine = Experiment(dataset="wine", loss="cross_entropy", batch_size=8)
    data = load_dataset(wine)
    whole = data_facts.of(wine, data).columns
    # Three of the thirteen columns at a time.
    monkeypatch.setattr(data_facts, "BLOCK", 3 * len(data.train_inputs))
    assert data_facts.of(wine, data).columns == whole
    inputs = np.asarray(data.train_inputs, np.float64)
    np.testing.assert_allclose([each.mean for each in whole], inputs.mean(0), 1e-12)
    np.testing.assert_allclose([each.spread for each in whole], inputs.std(0), 1e-12)

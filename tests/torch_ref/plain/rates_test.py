"""Tests of torch_ref/plain/rates.py: batched networks are those trained alone."""

import pytest
import torch

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref.plain import rates
from torch_ref.plain.work import prepare

EXPERIMENT = Experiment(
    dataset="iris",
    preprocess="standardize",
    model="mlp",
    hidden_sizes=(8, 4),
    loss="cross_entropy",
    precision="fp32",
    epochs=4,
)
RATES = [1e-3, 1e-2, 1e-1]


def works(experiment):
    data = load_dataset(experiment)
    return [prepare(experiment.replace(learning_rate=rate), data) for rate in RATES]


def test_batched_and_sequential_reach_the_same():
    _, alone = rates.sequential(works(EXPERIMENT))
    _, together = rates.batched(works(EXPERIMENT)[0], RATES, compiled=False)
    torch.testing.assert_close(
        torch.tensor(together), torch.tensor(alone), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "--optimizer: "),
        ({"l2": 0.1}, "--optimizer: "),
        ({"normalization": "batch"}, "--normalization: "),
    ],
)
def test_what_is_not_batched_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        rates.batched(works(EXPERIMENT.replace(**changes))[0], RATES, compiled=False)


@pytest.mark.parametrize("texts", [[], ["x"], ["0"], ["inf"]])
def test_bad_rates(texts):
    with pytest.raises(UserError, match="--rates: "):
        rates.read_rates(texts)

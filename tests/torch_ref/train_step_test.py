"""Tests of torch_ref/train_step.py; the whole step runs under DeepSpeed in
engine_test.py."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref import models, train_step
from torch_ref.train_step import Batch

ROWS, FEATURES = 8, 5
EXPERIMENT = Experiment(
    model="mlp",
    hidden_sizes=(6,),
    activation="tanh",
    dropout_rates=(0.5,),
    batch_size=ROWS,
)


def batch() -> Batch:
    """Two of the rows are padding."""
    rng = np.random.default_rng(0)
    inputs, targets = (
        rng.standard_normal((ROWS, FEATURES)),
        rng.standard_normal((ROWS, 2)),
    )
    return Batch(
        *map(
            torch.from_numpy,
            (inputs, targets, np.repeat(np.array([1, 0], np.float32), (6, 2))),
        )
    )


class TestObjective:
    @pytest.mark.parametrize(("parts", "world_size"), [(2, 1), (4, 1), (1, 2), (2, 2)])
    def test_shares_add_up_to_the_whole(self, monkeypatch, parts, world_size):
        """Masks and weights are those of the whole batch; the shares of ranks are
        averaged. float64: 30 roundings."""
        model, whole = (
            models.build(EXPERIMENT, Signature((FEATURES,), 2)).double(),
            batch(),
        )
        wanted = train_step.objective(EXPERIMENT, model, whole, 3, 0, 1).item()
        monkeypatch.setattr(
            train_step, "sum_over", lambda value, _: whole.weights.sum()
        )
        experiment = EXPERIMENT.replace(accumulation_steps=parts)
        total = 0.0
        for rank in range(world_size):
            rows = torch.from_numpy(
                batches.rank_slice(np.arange(ROWS), rank, world_size, parts)
            )
            mine = Batch(*(tensor[rows] for tensor in whole))
            for part in range(parts):
                total += (
                    train_step.objective(
                        experiment, model, mine, 3, rank, world_size, part
                    ).item()
                    / world_size
                )
        np.testing.assert_allclose(total, wanted, rtol=30 * 2**-53)

    def test_dropout_depends_on_the_step(self):
        model = models.build(EXPERIMENT, Signature((FEATURES,), 2)).double()
        first, second = (
            train_step.objective(EXPERIMENT, model, batch(), step, 0, 1).item()
            for step in (0, 1)
        )
        assert first != second


class TestForward:
    def test_tokens_stay_integers(self):
        seen = train_step.forward(
            Experiment(precision="fp16"), torch.nn.Identity(), torch.tensor([[65519]])
        )
        assert seen.dtype == torch.int64
        assert int(seen) == 65519  # float16 ends at 65504

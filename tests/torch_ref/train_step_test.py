"""Tests of torch_ref/train_step.py; the whole step runs under DeepSpeed in engine_test.py."""

import jax
import numpy as np
import pytest
import torch

from jaxnn import samples
from jaxnn.experiment import batches
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Signature
from jaxnn.experiment.preprocessing import Scaling
from torch_ref import models, train_step
from torch_ref.train_step import Batch, Resident

ROWS, FEATURES = 8, 5
EXPERIMENT = Experiment(model="mlp", hidden_sizes=(6,), activation="tanh", dropout_rates=(0.5,), batch_size=ROWS)


def batch() -> Batch:
    """Two of the rows are padding."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.standard_normal((ROWS, FEATURES)), rng.standard_normal((ROWS, 2))
    return Batch(*map(torch.from_numpy, (inputs, targets, np.repeat(np.array([1, 0], np.float32), (6, 2)))))


class TestObjective:
    @pytest.mark.parametrize(("parts", "world_size"), [(2, 1), (4, 1), (1, 2), (2, 2)])
    def test_shares_add_up_to_the_whole(self, monkeypatch, parts, world_size):
        """Masks and weights are those of the whole batch; the shares of ranks are averaged. float64: 30 roundings."""
        model, whole = models.build(EXPERIMENT, Signature((FEATURES,), 2)).double(), batch()
        wanted = train_step.objective(EXPERIMENT, model, whole, 3, 0, 1).item()
        monkeypatch.setattr(train_step, "sum_over", lambda value, _: whole.weights.sum())
        experiment = EXPERIMENT.replace(accumulation_steps=parts)
        total = 0.0
        for rank in range(world_size):
            rows = torch.from_numpy(batches.rank_slice(np.arange(ROWS), rank, world_size, parts))
            mine = Batch(*(tensor[rows] for tensor in whole))
            for part in range(parts):
                total += train_step.objective(experiment, model, mine, 3, rank, world_size, part).item() / world_size
        np.testing.assert_allclose(total, wanted, rtol=30 * 2**-53)

    def test_dropout_depends_on_the_step(self):
        model = models.build(EXPERIMENT, Signature((FEATURES,), 2)).double()
        first, second = (train_step.objective(EXPERIMENT, model, batch(), step, 0, 1).item() for step in (0, 1))
        assert first != second


class TestGather:
    def test_padding_weighs_nothing(self):
        resident = Resident(torch.arange(6.0).reshape(3, 2), torch.tensor([7, 8, 9]), None)
        rows = train_step.gather(resident, torch.tensor([2, 1, -1]))
        np.testing.assert_array_equal(rows.inputs, [[4, 5], [2, 3], [0, 1]])
        np.testing.assert_array_equal(rows.targets, [9, 8, 7])
        np.testing.assert_array_equal(rows.weights, [1, 1, 0])


class TestScaleBytes:
    @pytest.mark.parametrize("scaling", [None, Scaling(np.float32([0.1, 70, 130]), np.float32([1 / 255, 0.3, 0.02]))])
    def test_is_jaxnns_bit_for_bit(self, scaling):
        images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
        arrays = (scaling.offset, scaling.scale) if scaling else None
        tensors = (torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])) if arrays else None
        wanted = jax.jit(samples.scale_bytes)(images, arrays)
        np.testing.assert_array_equal(train_step.scale_bytes(torch.from_numpy(images), tensors), wanted, strict=True)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
    def test_leaves_other_inputs(self, dtype):
        inputs = torch.ones(2, 3, dtype=dtype)
        assert train_step.scale_bytes(inputs, (torch.zeros(3), torch.zeros(3))) is inputs


class TestForward:
    def test_tokens_stay_integers(self):
        seen = train_step.forward(Experiment(precision="fp16"), torch.nn.Identity(), torch.tensor([[65519]]))
        assert seen.dtype == torch.int64
        assert int(seen) == 65519  # float16 ends at 65504

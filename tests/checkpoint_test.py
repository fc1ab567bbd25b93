"""Checkpoints: exact, whole or absent, and refused by name when they do not fit."""

import jax
import numpy as np
import pytest

from jaxnn import checkpoint, models, train_step
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Signature
from jaxnn.optimizers import OPTIMIZERS


def state_of(seed: int = 0, hidden: int = 4) -> train_step.TrainState:
    experiment = Experiment(model="mlp", hidden_sizes=(hidden,), normalization="batch", precision="fp16")
    signature = Signature((3,), 1)
    variables = train_step.initial_variables(models.build(experiment, signature), seed, signature)
    return train_step.initial_state(variables, experiment, OPTIMIZERS["adam"](experiment))


class TestSaveAndRestore:
    def test_round_trip_to_the_bit(self, tmp_path):
        saved = state_of(seed=1)
        checkpoint.save(tmp_path, 12, saved)
        epochs, restored = checkpoint.restore(tmp_path, state_of(seed=2))
        assert epochs == 12
        assert jax.tree.structure(restored) == jax.tree.structure(saved)
        for ours, theirs in zip(jax.tree.leaves(saved), jax.tree.leaves(restored)):
            assert np.asarray(ours).tobytes() == theirs.tobytes()
            assert ours.dtype == theirs.dtype

    def test_keeps_the_newest_two(self, tmp_path):
        for epochs in (1, 2, 10):
            checkpoint.save(tmp_path, epochs, state_of())
        names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert names == ["epoch_000002.safetensors", "epoch_000010.safetensors"]
        assert checkpoint.restore(tmp_path, state_of())[0] == 10

    def test_none_there(self, tmp_path):
        with pytest.raises(UserError, match=r"--resume: .* holds no checkpoint; train with --checkpoint_every"):
            checkpoint.restore(tmp_path, state_of())

    def test_of_another_model_names_the_first_tensor(self, tmp_path):
        checkpoint.save(tmp_path, 1, state_of(hidden=5))
        with pytest.raises(UserError, match=r"--resume: batch_stats/norm_0/mean of .* is not this experiment's"):
            checkpoint.restore(tmp_path, state_of(hidden=4))

    def test_damaged(self, tmp_path):
        checkpoint.save(tmp_path, 1, state_of())
        path = tmp_path / "checkpoints" / "epoch_000001.safetensors"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UserError, match=r"--resume: cannot read .*epoch_000001\.safetensors"):
            checkpoint.restore(tmp_path, state_of())

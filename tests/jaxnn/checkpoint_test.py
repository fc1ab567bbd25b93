"""Checkpoints: exact, whole or absent, and refused by name when they do not fit."""

import pathlib
import shutil
import sys

import chex
import jax
import numpy as np
import pytest

from jaxnn import checkpoint, models, train_step
from jaxnn.checkpoint import Best, Checkpoints, Reported, Saved
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS


def state_of(seed: int = 0, hidden: int = 4, step: int = 0) -> train_step.TrainState:
    experiment = Experiment(
        model="mlp", hidden_sizes=(hidden,), normalization="batch", precision="fp16"
    )
    signature = Signature((3,), 1)
    variables = train_step.initial_variables(
        models.build(experiment, signature), seed, signature
    )
    state = train_step.initial_state(
        variables, experiment, OPTIMIZERS["adam"](experiment)
    )
    return state._replace(step=jax.numpy.int32(step))


def assert_same(left: train_step.TrainState, right: train_step.TrainState) -> None:
    chex.assert_trees_all_equal(left, right, strict=True)
    # Equal bytes, not only equal values: a zero keeps its sign.
    for ours, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def largest_file(workdir: pathlib.Path, step: int) -> pathlib.Path:
    files = (workdir / "checkpoints" / f"step_{step:09d}").rglob("*")
    return max(
        (path for path in files if path.is_file()), key=lambda path: path.stat().st_size
    )


class TestSaveAndRestore:
    def test_round_trip_to_the_bit(self, tmp_path):
        saved = state_of(seed=1, step=12)
        checkpoint.save(tmp_path, saved)
        assert checkpoint.steps(tmp_path) == [12]
        assert_same(checkpoint.restore(tmp_path, state_of(seed=2)), saved)

    def test_the_best_state_too(self, tmp_path):
        saved = Saved(
            state_of(seed=1),
            Best(state_of(seed=2), np.arange(6, dtype=np.float32).reshape(1, 2, 3)),
        )
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(saved)
        checkpoints.close()
        restored = checkpoint.restore_saved(tmp_path, state_of())
        assert_same(restored.state, saved.state)
        assert_same(restored.best.state, saved.best.state)
        np.testing.assert_array_equal(
            restored.best.outputs, saved.best.outputs, strict=True
        )
        assert len(restored.reported.loss) == 0

    def test_what_an_unfinished_epoch_reported(self, tmp_path):
        reported = Reported(
            np.float32([2, 1]), np.float32([0.5, 0.25]), np.array([True, False])
        )
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(Saved(state_of(step=7), reported=reported))
        checkpoints.close()
        restored = checkpoint.restore_saved(tmp_path, state_of())
        assert restored.best is None
        chex.assert_trees_all_equal(restored.reported, reported, strict=True)

    def test_keeps_the_newest(self, tmp_path):
        checkpoints = Checkpoints(tmp_path, keep=3)
        for step in (1, 2, 10, 11):
            checkpoints.save(Saved(state_of(step=step)))
        checkpoints.close()
        names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert names == ["step_000000002", "step_000000010", "step_000000011"]
        assert checkpoint.steps(tmp_path) == [2, 10, 11]
        assert checkpoint.restore(tmp_path, state_of()).step == 11
        assert (
            checkpoint.restore_saved(tmp_path, state_of(), before=11).state.step == 10
        )

    def test_later_ones_are_forgotten(self, tmp_path):
        for step in (1, 2):
            checkpoint.save(tmp_path, state_of(step=step))
        checkpoint.forget_after(tmp_path, 1)
        assert checkpoint.steps(tmp_path) == [1]

    def test_none_there(self, tmp_path):
        assert checkpoint.restore_saved(tmp_path, state_of()) is None
        with pytest.raises(
            UserError,
            match=r"--resume: .* holds no checkpoint; train with --checkpoint_every",
        ):
            checkpoint.restore(tmp_path, state_of())

    def test_of_another_model_names_the_first_tensor(self, tmp_path):
        checkpoint.save(tmp_path, state_of(hidden=5))
        with pytest.raises(
            UserError,
            match=r"--resume: batch_stats/norm_0/mean of .* is not this experiment's",
        ):
            checkpoint.restore(tmp_path, state_of(hidden=4))


class TestDamage:
    @pytest.fixture
    def two(self, tmp_path):
        for step in (1, 2):
            checkpoint.save(tmp_path, state_of(seed=step, step=step))
        return tmp_path

    @pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
    def test_the_one_before_is_used(self, two, damage, capsys):
        path = largest_file(two, 2)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        {
            "cut": lambda: path.write_bytes(content[: len(content) // 2]),
            "flipped": lambda: path.write_bytes(content),
            "gone": path.unlink,
        }[damage]()
        assert_same(checkpoint.restore(two, state_of()), state_of(seed=1, step=1))
        assert "step_000000002 is damaged and left out: " in capsys.readouterr().out

    def test_none_can_be_read(self, two):
        for step in (1, 2):
            largest_file(two, step).unlink()
        with pytest.raises(
            UserError,
            match=r"--resume: none of the 2 checkpoints in .*checkpoints can be read",
        ):
            checkpoint.restore(two, state_of())

    def test_a_full_disk_is_noticed_before_anything_is_written(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(
            shutil,
            "disk_usage",
            lambda folder: shutil._ntuple_diskusage(2**20, 2**20, 2**7),
        )
        with pytest.raises(
            UserError,
            match=r"cannot write .*checkpoints: 0\.000\d+ MiB needed, 0\.000122 free$",
        ):
            checkpoint.save(tmp_path, state_of())
        assert list(tmp_path.iterdir()) == []

    def test_what_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "checkpoints").write_text("a file")
        with pytest.raises(
            UserError, match=r"--checkpoint_every: cannot write .*checkpoints: "
        ):
            checkpoint.save(tmp_path, state_of())

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(28, "No space left on device", "a"), "No space left on device"),
            (FileNotFoundError("a/commit_success.txt"), "a/commit_success.txt is gone"),
            (
                ValueError(
                    "Error writing: No space left on device [os_error_code='28'] "
                    '[tensorstore_spec=\'{"path": "a"}\']'
                ),
                "No space left on device",
            ),
        ],
    )
    def test_the_reason_is_in_words(self, error, reason, tmp_path):
        with (
            pytest.raises(UserError, match=rf": {reason}$"),
            checkpoint._disk(tmp_path),
        ):
            raise error

    def test_late_callbacks_are_dropped_after_an_error(self, tmp_path):
        """And after it alone: nothing is left behind by what works."""
        before = sys.unraisablehook
        checkpoint.save(tmp_path, state_of(step=1))
        checkpoint.restore(tmp_path, state_of())
        assert sys.unraisablehook is before
        largest_file(tmp_path, 1).write_bytes(b"")
        with pytest.raises(UserError):
            checkpoint.restore(tmp_path, state_of())
        assert sys.unraisablehook is not before
        sys.unraisablehook = before

"""Tests of jaxnn/loop.py; of whole runs see tests/jaxnn/train_test.py."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import epochs, loop, parallel, train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import StepResult

NAMES = ["loss", "gradient of w"]
LINE = Experiment(
    num_samples=40,
    batch_size=8,
    epochs=3,
    learning_rate=0.1,
    precision="fp32",
    plots=False,
)
"""Five steps an epoch."""


class TestOneAhead:
    def test_the_next_epoch_starts_before_one_is_yielded(self):
        started = []

        def epochs():
            for number in range(3):
                started.append(number)
                yield number

        seen = [(number, list(started)) for number in loop.one_ahead(epochs())]
        assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]


class TestWatchedTensors:
    def test_the_loss_then_each_gradient(self):
        params = {"a": {"bias": jnp.ones(1)}, "b": {"kernel": jnp.ones(1)}}
        assert loop.watched_tensors(Experiment(), params) == [
            "loss",
            "gradient of a/bias",
            "gradient of b/kernel",
        ]

    def test_frozen_ones_have_none(self):
        params = {"a": {"bias": jnp.ones(1)}, "b": {"kernel": jnp.ones(1)}}
        names = loop.watched_tensors(Experiment(freeze="a/"), params)
        assert names == ["loss", "gradient of b/kernel"]


class TestTogether:
    """Epochs of one call."""

    def train(self, workdir, monkeypatch, seconds: float):
        """Trains; returns its parameters and how many programs it compiled."""
        compile_one = parallel.Compiled._compile
        compiled = []

        def counted(self, *args):
            compiled.append(args)
            return compile_one(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(epochs, "TOGETHER_SECONDS", seconds)
            patch.setattr(parallel.Compiled, "_compile", counted)
            train.main(LINE.replace(workdir=str(workdir)))
        return artifacts.read_params(str(workdir / artifacts.PARAMS), ""), len(compiled)

    def test_one_that_is_left_over_takes_no_program_of_its_own(
        self, tmp_path, monkeypatch
    ):
        alone, count = self.train(tmp_path / "alone", monkeypatch, 0)
        assert count == 1
        together, count = self.train(tmp_path / "together", monkeypatch, 1e9)
        assert count == 1
        chex.assert_trees_all_equal(alone, together)


class TestStopIfDiverged:
    def results(self, finite, skipped=(False, False), exhausted=(False, False)):
        """Two steps."""
        steps = np.ones(2, np.float32)
        return StepResult(
            loss=steps,
            learning_rate=steps,
            loss_scale=steps,
            skipped=np.array(skipped),
            exhausted=np.array(exhausted),
            finite=np.array(finite),
        )

    def test_finite_steps_pass(self):
        loop.stop_if_diverged(self.results([[True, True]] * 2), NAMES, 0)

    def test_names_step_and_tensor(self):
        results = self.results([[True, True], [True, False]])
        with pytest.raises(UserError, match=r"^step 8: gradient of w is not finite"):
            loop.stop_if_diverged(results, NAMES, 7)

    def test_a_skipped_step_passes(self):
        results = self.results([[True, False], [True, True]], skipped=(True, False))
        loop.stop_if_diverged(results, NAMES, 7)

    def test_an_overflow_at_the_smallest_scale_ends_the_run(self):
        results = self.results(
            [[True, True], [False, False]],
            skipped=(False, True),
            exhausted=(False, True),
        )
        with pytest.raises(
            UserError, match=r"^step 8: loss overflows at the smallest loss scale \(1\)"
        ):
            loop.stop_if_diverged(results, NAMES, 7)


class TestLine:
    """Weight and bias of a fitted line, by epoch."""

    def trained(self, workdir, **settings):
        """Weight and bias [epochs, 2] of a run, and what its parameters are."""
        train.main(LINE.replace(workdir=str(workdir), **settings))
        metrics = artifacts.read_metrics(workdir)
        params = artifacts.read_params(str(workdir / artifacts.PARAMS), "")
        return (
            np.stack([metrics["weight"], metrics["bias"]], axis=1),
            [params["output/kernel"].item(), params["output/bias"].item()],
        )

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"precision": "fp16", "accumulation_steps": 2, "loss_scale_window": 3},
            # Nothing is left of the first epoch, of the second a part.
            {"record": "params", "record_steps": 7, "diagnose": True},
        ],
        ids=["whole epochs", "fp16", "recorded"],
    )
    def test_is_what_the_parameters_are_then(self, tmp_path, settings):
        lines, last = self.trained(tmp_path / "run", **settings)
        assert lines.shape == (3, 2)
        assert list(lines[-1]) == last
        _, first = self.trained(tmp_path / "first", **settings, epochs=1)
        # One epoch is another program than several.
        np.testing.assert_allclose(lines[0], first, rtol=1e-5)

    def test_goes_on_after_a_resumption(self, tmp_path):
        whole, _ = self.trained(tmp_path, checkpoint_every=1)
        (tmp_path / artifacts.SUMMARY).unlink()
        resumed, _ = self.trained(tmp_path, checkpoint_every=1, resume=True)
        np.testing.assert_array_equal(resumed, whole)

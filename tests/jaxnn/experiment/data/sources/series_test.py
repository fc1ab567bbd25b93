"""Tests of jaxnn/experiment/data/sources/series.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.data.sources.series import NOISE, WAVES, series, sine, windows
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


class TestSeries:
    def test_is_waves_and_noise(self):
        length = 20_000
        values = series(length, 3).astype(np.float64)
        angles = (
            2
            * np.pi
            * np.arange(length)[:, None]
            / np.array([period for _, period in WAVES])
        )
        basis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        weights, rest, *_ = np.linalg.lstsq(basis, values, rcond=None)
        # Five standard errors of a wave's weight.
        error = 5 * NOISE * (2 / length) ** 0.5
        np.testing.assert_allclose(
            np.hypot(weights[:3], weights[3:]), [size for size, _ in WAVES], atol=error
        )
        np.testing.assert_allclose(
            rest / length, NOISE**2, rtol=5 * (2 / length) ** 0.5
        )

    def test_seed_decides(self):
        np.testing.assert_array_equal(series(50, 1), series(50, 1), strict=True)
        assert (series(50, 1) != series(50, 2)).all()


class TestWindows:
    @given(length=st.integers(1, 60), steps=st.integers(1, 30))
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_each_run_and_the_value_after_it(self, length, steps):
        inputs, targets = windows(np.arange(length, dtype=np.float32), steps)
        count = max(0, length - steps)
        assert (inputs.shape, targets.shape) == ((count, steps, 1), (count, 1))
        np.testing.assert_array_equal(
            inputs[..., 0] - np.arange(count)[:, None],
            np.tile(np.arange(steps), (count, 1)),
        )
        np.testing.assert_array_equal(targets[:, 0], np.arange(count) + steps)


class TestSine:
    @given(
        samples=st.integers(100, 400),
        steps=st.integers(1, 15),
        validation=st.sampled_from([0, 0.25]),
    )
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_no_value_is_in_two_splits_and_time_runs_on(
        self, samples, steps, validation
    ):
        data = sine(
            Experiment(
                num_samples=samples,
                sequence_length=steps,
                validation_fraction=validation,
            )
        )
        values = series(samples, 42)
        # So that a value tells its time.
        assert len(np.unique(values)) == samples
        seen = []
        for name in ("train", "validation", "test"):
            inputs = getattr(data, f"{name}_inputs")
            targets = getattr(data, f"{name}_targets")
            if inputs is not None:
                seen.append(np.flatnonzero(np.isin(values, np.append(inputs, targets))))
        np.testing.assert_array_equal(np.concatenate(seen), np.arange(samples))
        assert len(seen) == 2 + bool(validation)

    def test_persistence_is_a_beatable_baseline(self):
        data = sine(Experiment())
        error = data.test_inputs[:, -1].astype(np.float64) - data.test_targets
        # Root mean squares of a step: a sqrt(2) sin(pi / period) of a wave of amplitude
        # a, sqrt(2) of the noise.
        moves = [a * 2**0.5 * np.sin(np.pi / period) for a, period in WAVES] + [
            2**0.5 * NOISE
        ]
        # This draw of 1,950 samples keeps 0.0003; a noise of 0.051 would be off by
        # 0.0017.
        np.testing.assert_allclose(
            np.sqrt(np.square(error).mean()), np.linalg.norm(moves), rtol=0.001
        )
        assert np.linalg.norm(moves) > 4 * NOISE

    @pytest.mark.parametrize(
        ("change", "split"),
        [
            (dict(num_samples=50), "training"),
            (dict(num_samples=200), "test"),
            (dict(num_samples=500, validation_fraction=0.1), "validation"),
        ],
    )
    def test_a_split_without_a_window_is_named(self, change, split):
        with pytest.raises(
            UserError,
            match=rf"^--sequence_length: [^\n]* values of the {split} split; give more",
        ):
            sine(Experiment(dataset="sine", **change))

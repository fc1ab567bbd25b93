"""Tests of jaxnn/experiment/data/preprocessing.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from jaxnn.experiment.data import lazy_rows, preprocessing
from jaxnn.experiment.data.preprocessing import HostScaling, Scaling

TABLE = np.random.default_rng(0).normal(3, 100, (50, 4)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 200, (7, 5, 4, 3), np.uint8)
BYTES = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)


class TestFit:
    def test_none_is_no_scaling(self):
        assert preprocessing.fit("none", TABLE) is None

    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    def test_bytes_wait_for_the_device_in_float32(self, method):
        scaling = preprocessing.fit(method, IMAGES)
        assert isinstance(scaling, Scaling)
        assert [(part.shape, part.dtype) for part in scaling] == [
            ((3,), np.float32)
        ] * 2

    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    @pytest.mark.parametrize(
        ("shape", "fitted"),
        [((9, 4), (4,)), ((9, 5, 2), (2,)), ((9, 2, 3, 1), (2, 3, 1))],
    )
    def test_shapes_of_floats(self, method, shape, fitted):
        scaling = preprocessing.fit(
            method, np.random.default_rng(0).random(shape, np.float32)
        )
        assert isinstance(scaling, HostScaling)
        assert [(part.shape, part.dtype) for part in scaling] == [
            (fitted, np.float64)
        ] * 2


class TestStandardize:
    def test_is_the_float64_formula_to_the_bit(self):
        exact = (TABLE - TABLE.mean(axis=0, dtype=np.float64)) / TABLE.std(
            axis=0, dtype=np.float64
        )
        scaled = preprocessing.standardize(TABLE).apply(TABLE)
        np.testing.assert_array_equal(scaled, exact.astype(np.float32), strict=True)

    def test_is_scikit_learns_to_one_ulp(self):
        theirs = (
            StandardScaler().fit_transform(TABLE.astype(np.float64)).astype(np.float32)
        )
        np.testing.assert_array_max_ulp(
            preprocessing.standardize(TABLE).apply(TABLE), theirs, maxulp=1
        )

    @given(
        st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 2000)
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_a_constant_feature_becomes_zero(self, value, samples):
        inputs = np.full((samples, 1), value, np.float32)
        scaled = preprocessing.standardize(inputs).apply(inputs)
        np.testing.assert_array_equal(scaled, np.zeros_like(inputs), strict=True)

    def test_a_feature_constant_in_training_is_only_shifted_later(self):
        scaling = preprocessing.standardize(np.full((3, 1), 5, np.float32))
        np.testing.assert_array_equal(scaling.apply(np.array([[7]], np.float32)), [[2]])

    def test_channels_of_bytes(self):
        scaling = preprocessing.standardize(IMAGES)
        pixels = IMAGES.reshape(-1, 3).astype(np.float64)
        # Both sides round to float32, and float64 sums of 140 numbers are far more
        # exact than that.
        np.testing.assert_allclose(scaling.offset, pixels.mean(axis=0), rtol=2**-24)
        np.testing.assert_allclose(scaling.scale, 1 / pixels.std(axis=0), rtol=2**-24)

    def test_a_constant_channel_becomes_zero(self):
        images = np.full((3, 2, 2, 2), 200, np.uint8)
        np.testing.assert_array_equal(
            preprocessing.standardize(images).apply(images), np.zeros_like(images)
        )

    def test_sequences_share_a_scale_over_time(self):
        steps = np.random.default_rng(0).normal(5, 2, (6, 7, 2)).astype(np.float32)
        scaling = preprocessing.standardize(steps)
        np.testing.assert_allclose(
            scaling.offset,
            steps.reshape(-1, 2).astype(np.float64).mean(axis=0),
            rtol=1e-14,
        )


class TestParts:
    """Inputs that are read in chunks, as those of mapped files are."""

    @pytest.mark.parametrize(
        "inputs",
        [TABLE, IMAGES, TABLE.reshape(10, 5, 4)],
        ids=["table", "bytes", "sequences"],
    )
    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    def test_parts_make_no_difference(self, monkeypatch, method, inputs):
        whole = preprocessing.fit(method, inputs)
        monkeypatch.setattr(lazy_rows, "NUMBERS_AT_ONCE", 100)
        parts = preprocessing.fit(method, inputs)
        # A mean of 50 float64 numbers rounds 50 times, by an ulp of the largest at
        # most; bytes and extremes are exact.
        rounding = (
            50 * 2**-53 * np.abs(TABLE).max()
            if method == "standardize" and inputs.dtype != np.uint8
            else 0
        )
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=rounding)


class TestMinMax:
    def test_is_scikit_learns_to_one_ulp(self):
        theirs = (
            MinMaxScaler().fit_transform(TABLE.astype(np.float64)).astype(np.float32)
        )
        np.testing.assert_array_max_ulp(
            preprocessing.min_max(TABLE).apply(TABLE), theirs, maxulp=1
        )

    @given(
        arrays(
            np.float32,
            (6, 2),
            elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
        )
    )
    @settings(deadline=None, max_examples=100, derandomize=True)
    def test_spans_exactly_0_to_1_and_a_constant_is_0(self, inputs):
        scaled = preprocessing.min_max(inputs).apply(inputs)
        np.testing.assert_array_equal(scaled.min(axis=0), [0, 0])
        np.testing.assert_array_equal(
            scaled.max(axis=0),
            (inputs.min(axis=0) < inputs.max(axis=0)).astype(np.float32),
        )

    def test_bytes_are_divided_by_255(self):
        scaled = preprocessing.min_max(BYTES).apply(BYTES)[:, 0, 0, 0]
        assert (scaled[0], scaled[255], scaled.dtype) == (0, 1, np.float32)
        # 1 / 255 and its product are each rounded to float32 once.
        np.testing.assert_allclose(scaled, np.arange(256) / 255, rtol=2 * 2**-24)


class TestInvert:
    @given(arrays(np.float32, (5, 2), elements=st.floats(-1e6, 1e6, width=32)))
    @settings(deadline=None, max_examples=100, derandomize=True)
    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    def test_takes_apply_back(self, method, inputs):
        scaling = preprocessing.fit(method, inputs)
        back = scaling.invert(scaling.apply(inputs))
        assert back.dtype == np.float64
        # A scaled value is at most sqrt(5) in size and wrong by half an ulp of float32;
        # so much of the divisor comes back, and the sum of offset and product is
        # rounded in float64.
        error = (
            3 * 2.0**-24 * scaling.divisor
            + 2.0**-50 * np.abs(inputs).max(axis=0)
            + 1e-44
        )
        assert (np.abs(back - inputs) <= error).all()

    @pytest.mark.parametrize("method", ["standardize", "min_max"])
    def test_takes_bytes_back(self, method):
        scaling = preprocessing.fit(method, BYTES)
        np.testing.assert_array_equal(
            np.round(scaling.invert(scaling.apply(BYTES))), BYTES
        )

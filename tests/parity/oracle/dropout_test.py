"""Tests of parity/oracle/dropout.py: masks equal jax.random's to the bit."""

import jax
import numpy as np
import pytest

import jaxnn.dropout
from parity.oracle.dropout import Masks, dropout, mask
from parity.oracle.operations import total
from parity.oracle.tensor import gradients, variable


class TestMask:
    @pytest.mark.parametrize(
        ("seed", "step", "layer", "keep"),
        [
            (0, 0, 0, 0.5),
            (3, 17, 2, 0.9),
            (2**31 - 1, 2**31 - 1, 5, 0.123),
            (7, 1, 0, 1 - 1e-9),
        ],
    )
    def test_is_jaxs(self, seed, step, layer, keep):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), layer)
        expected = jax.random.bernoulli(key, np.float32(keep), (40, 3, 5))
        np.testing.assert_array_equal(
            mask(Masks(seed, step), layer, keep, (40, 3, 5)), expected
        )

    def test_of_later_rows_is_a_part_of_the_batchs(self):
        whole = mask(Masks(1, 2), 0, 0.5, (12, 3))
        for first in (0, 4, 11):
            np.testing.assert_array_equal(
                mask(Masks(1, 2, first), 0, 0.5, (12 - first, 3)), whole[first:]
            )


class TestDropout:
    def test_values_are_jaxnns_and_so_are_the_derivatives(self):
        # Division by a power of two does not round. The mask is a constant to the
        # derivative.
        values = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
        x = variable(values)
        y = dropout(x, 0.75, 3, Masks(5, 6))
        theirs = jaxnn.dropout.dropout(
            values, 0.75, 3, jaxnn.dropout.mask_source(5, 6, 0)
        )
        np.testing.assert_array_equal(y.value, theirs)
        np.testing.assert_array_equal(gradients(total(y), [x])[0], 4.0 * (y.value != 0))
        assert 0 < (y.value == 0).sum() < y.value.size

    @pytest.mark.parametrize(("rate", "masks"), [(0.0, Masks(0, 0)), (0.5, None)])
    def test_without_a_rate_or_outside_training_returns_its_argument(self, rate, masks):
        x = variable(np.ones((2, 2)))
        assert dropout(x, rate, 0, masks) is x

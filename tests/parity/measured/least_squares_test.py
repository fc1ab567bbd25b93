"""Weighted least squares against NumPy's, and what the columns do not tell."""

import numpy as np
import pytest

from parity.measured.least_squares import quality, solve

RNG = np.random.default_rng(0)


def test_is_numpys():
    columns, y = RNG.standard_normal((50, 3)), RNG.standard_normal(50)
    sigma = RNG.uniform(0.5, 2, 50)
    expected = np.linalg.lstsq(columns / sigma[:, None], y / sigma)[0]
    np.testing.assert_allclose(solve(columns, y, sigma).values, expected, rtol=1e-9)


def test_deviations_are_those_of_many_draws():
    columns, sigma = RNG.standard_normal((40, 2)), np.full(40, 0.1)
    draws = [
        solve(columns, 0.1 * RNG.standard_normal(40), sigma).values for _ in range(500)
    ]
    sigmas = solve(columns, np.zeros(40), sigma).sigmas
    np.testing.assert_allclose(np.std(draws, axis=0), sigmas, rtol=0.15)


@pytest.mark.parametrize("other", [0.0, 2.0])
def test_equal_columns_are_not_told_apart(other):
    column = RNG.standard_normal(20)
    solution = solve(np.stack([column, other * column], -1), column, np.ones(20))
    assert np.isinf(solution.sigmas[1])
    assert np.isinf(solution.sigmas[0]) == bool(other)


def test_as_many_unknowns_as_numbers_tell_nothing():
    assert not quality(np.zeros(3), 3).is_good
    assert quality(np.zeros(3), 2).is_good

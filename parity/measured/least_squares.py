"""Weighted linear least squares that say what they cannot see."""

from typing import NamedTuple

import numpy as np

from parity.measured.numbers import SIGMAS, Measured

HIDDEN = 1e-12
"""Eigenvalue of a scaled Gram matrix below which a direction is not seen."""


class Solution(NamedTuple):
    """A fit of y by columns.

    Attributes:
      values: [..., P] coefficients.
      sigmas: [..., P] standard deviations; inf where the columns do not tell.
      residuals: [..., N] y minus the fit, in units of rounding.
    """

    values: np.ndarray
    sigmas: np.ndarray
    residuals: np.ndarray

    def measured(self, *index: int, stretch: float = 1.0) -> Measured:
        """Returns one coefficient, with the error of a setting held in float32.

        Args:
          *index: its place in `values`.
          stretch: rms of the residuals, which widens the interval if above 1.
        """
        value, sigma = float(self.values[index]), float(self.sigmas[index])
        error = SIGMAS * sigma * max(1.0, stretch)
        return Measured(value, error + 2.0**-24 * abs(value))


class Quality(NamedTuple):
    """How well a formula reproduces recorded numbers.

    Attributes:
      rms: root mean square of the residuals over the degrees of freedom, in units of
        float32 rounding; inf if there are none.
      worst: largest residual.
      freedom: degrees of freedom left.
    """

    rms: float
    worst: float
    freedom: int

    @property
    def is_good(self) -> bool:
        """True if rounding explains the residuals."""
        return self.freedom > 0 and self.rms < 1.5 and self.worst < 8


NO_QUALITY = Quality(np.inf, np.inf, 0)


def solve(columns: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> Solution:
    """Fits y by columns, each row weighted by 1 / sigma.

    Args:
      columns: [..., N, P].
      y: [..., N].
      sigma: [..., N] standard deviation of y.
    """
    weighted = columns / sigma[..., None]
    scale = np.sqrt(np.sum(np.square(weighted), axis=-2))
    scale = np.where(scale > 0, scale, 1.0)
    unit = weighted / scale[..., None, :]
    inverse, is_seen = _inverse(np.swapaxes(unit, -1, -2) @ unit)

    left = y / sigma
    values = np.zeros(scale.shape)
    # The second round removes what squaring the condition number cost the first.
    for _ in range(2):
        part = inverse @ (np.swapaxes(unit, -1, -2) @ left[..., None])
        values = values + part[..., 0]
        left = left - (unit @ part)[..., 0]
    variance = np.einsum("...pp->...p", inverse)
    sigmas = np.where(is_seen, np.sqrt(np.maximum(variance, 0)), np.inf)
    return Solution(values / scale, sigmas / scale, left)


def quality(residuals: np.ndarray, unknowns: int) -> Quality:
    """Returns the quality of a fit with that many coefficients."""
    freedom = residuals.size - unknowns
    if freedom <= 0 or not np.isfinite(residuals).all():
        return Quality(np.inf, np.inf, freedom)
    rms = np.sqrt(np.sum(np.square(residuals)) / freedom)
    return Quality(float(rms), float(np.abs(residuals).max()), freedom)


def worse(a: Quality, b: Quality) -> Quality:
    """Returns the larger residuals of two qualities."""
    return Quality(max(a.rms, b.rms), max(a.worst, b.worst), min(a.freedom, b.freedom))


def _inverse(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pseudo-inverse, and which coefficients it determines."""
    # Columns that are not finite determine nothing.
    gram = np.where(np.isfinite(gram).all(axis=(-2, -1), keepdims=True), gram, 0.0)
    eigenvalues, vectors = np.linalg.eigh(gram)
    is_kept = eigenvalues > HIDDEN
    reciprocal = np.where(is_kept, 1 / np.where(is_kept, eigenvalues, 1.0), 0.0)
    inverse = np.einsum("...pk,...k,...qk->...pq", vectors, reciprocal, vectors)
    hidden = np.einsum("...pk,...k->...p", np.square(vectors), 1.0 * ~is_kept)
    return inverse, hidden < 1e-6

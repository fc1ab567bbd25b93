"""How far float32 arithmetic moves each recorded number: its standard deviation."""

import numpy as np

from parity.measured.history import History

HALF_ULP = 2.0**-25
"""Half an ulp of float32 just below 1: the error of a setting held in float32."""

TINY = 1.2e-38
"""Smallest normal float32: below it, XLA on a CPU rounds to 0."""


def of_params(history: History) -> np.ndarray:
    """[T, N] rounding of w'.

    Two roundings at the size of w (of w (1 - rate decay), then of the difference) and
    some at the size of the update.
    """
    size = np.maximum(np.abs(history.w), np.abs(history.new_w))
    ulp = np.spacing(size.astype(np.float32)).astype(np.float64)
    moved = np.abs(history.new_w - history.w)
    return np.hypot(ulp * np.sqrt(2 / 12), 2 * HALF_ULP * moved) + TINY


def of_sum(*parts: np.ndarray) -> np.ndarray:
    """[T, N] rounding of a sum's parts: large beside a sum in which they cancel."""
    return HALF_ULP * np.sum([np.abs(part) for part in parts], axis=0)


def of_moment(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[T, N] rounding of b m + c g: of both products and of their sum."""
    return HALF_ULP * (np.abs(before) + 2 * np.abs(after)) + TINY

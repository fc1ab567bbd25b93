"""Differentiable operations beyond Python's operators: primitives, then compositions.

A primitive has its own vector-Jacobian product. A composition is made of primitives and
gets its derivative from the tape.
"""

import math
from collections.abc import Sequence

import numpy as np

from parity.oracle.tensor import VJP, Tensor, TensorLike, lift, record, unbroadcast

Axes = int | tuple[int, ...] | None


# Primitives.


def exp(x: TensorLike) -> Tensor:
    """e^x; derivative e^x."""
    x = lift(x)
    y = np.exp(x.value)
    return record(y, (x, lambda g: g * y))


def log(x: TensorLike) -> Tensor:
    """Natural logarithm; derivative 1 / x."""
    x = lift(x)
    return record(np.log(x.value), (x, lambda g: g / x.value))


def log1p(x: TensorLike) -> Tensor:
    """log(1 + x), accurate for small x; derivative 1 / (1 + x)."""
    x = lift(x)
    return record(np.log1p(x.value), (x, lambda g: g / (1 + x.value)))


def tanh(x: TensorLike) -> Tensor:
    """Hyperbolic tangent; derivative 1 - tanh(x)^2."""
    x = lift(x)
    y = np.tanh(x.value)
    return record(y, (x, lambda g: g * (1 - y * y)))


def erfc(x: TensorLike) -> Tensor:
    """Complementary error function; derivative -2 exp(-x^2) / sqrt(pi)."""
    x = lift(x)
    # Element by element with math.erfc: NumPy has no erfc, and the oracle does not
    # import SciPy.
    values = map(math.erfc, x.value.flat)
    y = np.fromiter(values, np.float64, x.value.size).reshape(x.shape)

    def vjp(g: np.ndarray) -> np.ndarray:
        return g * (-2 / math.sqrt(math.pi)) * np.exp(-np.square(x.value))

    return record(y, (x, vjp))


def maximum(x: TensorLike, y: TensorLike) -> Tensor:
    """Elementwise max(x, y); the derivative goes to the larger one, to y if equal."""
    x = lift(x)
    y = lift(y)
    # Ties go to y. With y = 0 this is relu'(0) = 0, as in jax.nn.relu and torch.
    first = x.value > y.value
    return record(
        np.maximum(x.value, y.value),
        (x, lambda g: unbroadcast(np.where(first, g, 0), x.shape)),
        (y, lambda g: unbroadcast(np.where(first, 0, g), y.shape)),
    )


def where(condition: np.ndarray, x: TensorLike, y: TensorLike) -> Tensor:
    """x where `condition` is True, else y; each gets the derivative where chosen."""
    x = lift(x)
    y = lift(y)
    # A selection in the VJP, not a product with a mask: 0 times an infinite or nan
    # derivative would be nan.
    return record(
        np.where(condition, x.value, y.value),
        (x, lambda g: unbroadcast(np.where(condition, g, 0), x.shape)),
        (y, lambda g: unbroadcast(np.where(condition, 0, g), y.shape)),
    )


def total(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over axes; each summand gets the whole derivative."""
    x = lift(x)

    def spread(g: np.ndarray) -> np.ndarray:
        if axis is not None and not keepdims:
            g = np.expand_dims(g, axis)
        return np.broadcast_to(g, x.shape)

    return record(x.value.sum(axis=axis, keepdims=keepdims), (x, spread))


def reshape(x: TensorLike, shape: tuple[int, ...]) -> Tensor:
    """x in another shape; the derivative is reshaped back."""
    x = lift(x)
    return record(x.value.reshape(shape), (x, lambda g: g.reshape(x.shape)))


def transpose(x: TensorLike, axes: tuple[int, ...]) -> Tensor:
    """x with its axes permuted; the derivative is permuted back."""
    x = lift(x)
    # argsort of a permutation is its inverse.
    return record(x.value.transpose(axes), (x, lambda g: g.transpose(np.argsort(axes))))


def concatenate(tensors: Sequence[TensorLike], axis: int) -> Tensor:
    """Tensors joined along an axis; each gets its slice of the derivative."""
    pieces = [lift(tensor) for tensor in tensors]
    ends = np.cumsum([0] + [piece.shape[axis] for piece in pieces])

    def cut(start: int, end: int) -> VJP:
        return lambda g: g.swapaxes(0, axis)[start:end].swapaxes(0, axis)

    return record(
        np.concatenate([piece.value for piece in pieces], axis),
        *(
            (piece, cut(start, end))
            for piece, start, end in zip(pieces, ends, ends[1:])
        ),
    )


# Compositions of primitives.


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over axes."""
    x = lift(x)
    summed = total(x, axis, keepdims)
    # This ratio of sizes is one over the number of summands, for any axes.
    return summed * (summed.value.size / x.value.size)


def stack(tensors: Sequence[TensorLike], axis: int) -> Tensor:
    """Tensors of one shape, stacked along a new axis."""
    pieces = [lift(tensor) for tensor in tensors]
    widened = [
        reshape(piece, (*piece.shape[:axis], 1, *piece.shape[axis:]))
        for piece in pieces
    ]
    return concatenate(widened, axis)


def pad(
    x: TensorLike, before: int, after: int, axis: int, value: float = 0.0
) -> Tensor:
    """x with `before` and `after` constants added at the two ends of an axis."""
    x = lift(x)
    ends = [
        np.full((*x.shape[:axis], count, *x.shape[axis + 1 :]), value)
        for count in (before, after)
    ]
    return concatenate([ends[0], x, ends[1]], axis)


def magnitude(x: TensorLike) -> Tensor:
    """|x|, with derivative 1 at 0."""
    x = lift(x)
    return where(x.value >= 0, x, -x)


def sigmoid(x: TensorLike) -> Tensor:
    """1 / (1 + exp(-x))."""
    x = lift(x)
    # Only exp(-|x|) <= 1 is computed. Neither the value nor the derivative that follows
    # from it overflows or cancels, on either side.
    small = exp(-magnitude(x))
    return where(x.value >= 0, 1.0, small) / (1.0 + small)


def softplus(x: TensorLike) -> Tensor:
    """log(1 + exp(x)); derivative sigmoid(x)."""
    x = lift(x)
    # max(x, 0) + log1p(exp(-|x|)), which cannot overflow.
    return where(x.value >= 0, x, 0.0) + log1p(exp(-magnitude(x)))


def log_sum_exp(x: TensorLike) -> Tensor:
    """log sum_k exp(x_k) over the last axis: [..., n] -> [...]."""
    x = lift(x)
    # The largest entry is subtracted against overflow. It may be a constant to the tape
    # because its derivative cancels.
    largest = x.value.max(axis=-1, keepdims=True)
    return log(total(exp(x - largest), axis=-1)) + largest[..., 0]


def softmax(x: TensorLike) -> Tensor:
    """exp(x_k) / sum_j exp(x_j) over the last axis: [..., n] -> [..., n]."""
    x = lift(x)
    # The shift is a constant to the tape, as in `log_sum_exp`.
    powers = exp(x - x.value.max(axis=-1, keepdims=True))
    return powers / total(powers, axis=-1, keepdims=True)

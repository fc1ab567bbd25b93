"""The other primitive operations, each with its vector-Jacobian product; then what is
built of them."""

import math
from collections.abc import Sequence

import numpy as np

from parity.oracle.tensor import Tensor, TensorLike, lift, record, unbroadcast

Axes = int | tuple[int, ...] | None


def exp(x: TensorLike) -> Tensor:
    """e^x; derivative e^x."""
    x = lift(x)
    y = np.exp(x.value)
    return record(y, (x, lambda g: g * y))


def log(x: TensorLike) -> Tensor:
    """The natural logarithm; derivative 1 / x."""
    x = lift(x)
    return record(np.log(x.value), (x, lambda g: g / x.value))


def log1p(x: TensorLike) -> Tensor:
    """log(1 + x) without loss of a small x; derivative 1 / (1 + x)."""
    x = lift(x)
    return record(np.log1p(x.value), (x, lambda g: g / (1 + x.value)))


def tanh(x: TensorLike) -> Tensor:
    """The hyperbolic tangent; derivative 1 - tanh(x)^2."""
    x = lift(x)
    y = np.tanh(x.value)
    return record(y, (x, lambda g: g * (1 - y * y)))


def erfc(x: TensorLike) -> Tensor:
    """The complementary error function; derivative -2 exp(-x^2) / sqrt(pi)."""
    x = lift(x)
    y = np.fromiter(map(math.erfc, x.value.flat), np.float64, x.value.size).reshape(
        x.shape
    )
    return record(
        y, (x, lambda g: g * (-2 / math.sqrt(math.pi)) * np.exp(-np.square(x.value)))
    )


def maximum(x: TensorLike, y: TensorLike) -> Tensor:
    """The larger of two, elementwise; the derivative goes to it, and of equals to y."""
    x, y = lift(x), lift(y)
    first = x.value > y.value
    return record(
        np.maximum(x.value, y.value),
        (x, lambda g: unbroadcast(np.where(first, g, 0), x.shape)),
        (y, lambda g: unbroadcast(np.where(first, 0, g), y.shape)),
    )


def where(condition: np.ndarray, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds, else y, elementwise; each gets the derivative where
    it was chosen."""
    x, y = lift(x), lift(y)
    return record(
        np.where(condition, x.value, y.value),
        (x, lambda g: unbroadcast(np.where(condition, g, 0), x.shape)),
        (y, lambda g: unbroadcast(np.where(condition, 0, g), y.shape)),
    )


def total(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum over axes; each summand gets the whole derivative."""
    x = lift(x)

    def spread(g: np.ndarray) -> np.ndarray:
        if axis is not None and not keepdims:
            g = np.expand_dims(g, axis)
        return np.broadcast_to(g, x.shape)

    return record(x.value.sum(axis=axis, keepdims=keepdims), (x, spread))


def reshape(x: TensorLike, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in another shape; so is their derivative."""
    x = lift(x)
    return record(x.value.reshape(shape), (x, lambda g: g.reshape(x.shape)))


def transpose(x: TensorLike, axes: tuple[int, ...]) -> Tensor:
    """Axes in another order; the derivative's go back."""
    x = lift(x)
    return record(x.value.transpose(axes), (x, lambda g: g.transpose(np.argsort(axes))))


def concatenate(tensors: Sequence[TensorLike], axis: int) -> Tensor:
    """Tensors side by side along an axis; each gets its part of the derivative."""
    parts = [lift(tensor) for tensor in tensors]
    ends = np.cumsum([0] + [part.shape[axis] for part in parts])

    def cut(start: int, end: int):
        return lambda g: g.swapaxes(0, axis)[start:end].swapaxes(0, axis)

    return record(
        np.concatenate([part.value for part in parts], axis),
        *((part, cut(start, end)) for part, start, end in zip(parts, ends, ends[1:])),
    )


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The sum over axes over the number of summands."""
    x = lift(x)
    summed = total(x, axis, keepdims)
    return summed * (summed.value.size / x.value.size)


def stack(tensors: Sequence[TensorLike], axis: int) -> Tensor:
    """Tensors of one shape along a new axis."""
    parts = [lift(tensor) for tensor in tensors]
    wider = [(*part.shape[:axis], 1, *part.shape[axis:]) for part in parts]
    return concatenate(
        [reshape(part, shape) for part, shape in zip(parts, wider)], axis
    )


def pad(
    x: TensorLike, before: int, after: int, axis: int, value: float = 0.0
) -> Tensor:
    """A tensor with so many constants before and after it along an axis."""
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
    """1 / (1 + exp(-x)), in value and derivative without overflow or cancellation on
    either side."""
    x = lift(x)
    small = exp(-magnitude(x))
    return where(x.value >= 0, 1.0, small) / (1.0 + small)


def softplus(x: TensorLike) -> Tensor:
    """log(1 + exp(x)), likewise; derivative sigmoid(x)."""
    x = lift(x)
    return where(x.value >= 0, x, 0.0) + log1p(exp(-magnitude(x)))


def log_sum_exp(x: TensorLike) -> Tensor:
    """log sum_k exp(x_k) over the last axis: [..., n] -> [...]; moved by the largest, a
    constant that cancels."""
    x = lift(x)
    largest = x.value.max(axis=-1, keepdims=True)
    return log(total(exp(x - largest), axis=-1)) + largest[..., 0]


def softmax(x: TensorLike) -> Tensor:
    """exp(x_k) / sum_j exp(x_j) over the last axis, moved likewise."""
    x = lift(x)
    powers = exp(x - x.value.max(axis=-1, keepdims=True))
    return powers / total(powers, axis=-1, keepdims=True)

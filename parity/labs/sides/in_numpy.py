"""Five operations of linear algebra in NumPy; the gradient by parity.oracle."""

import numpy as np
from numpy import ndarray as Array

from parity.oracle import operations, tensor


def dot(x: Array, y: Array) -> Array:
    """Sum of products: [n], [n] -> ()."""
    return np.dot(x, y)


def matmul(a: Array, b: Array) -> Array:
    """Product of matrices: [m, n], [n, k] -> [m, k]."""
    return a @ b


def broadcast(a: Array, x: Array, y: Array) -> Array:
    """A row added to every row, a column times every column; [n, n], [n], [n]."""
    return (a + x[None, :]) * y[:, None]


def solve(a: Array, x: Array) -> Array:
    """The z with a z = x: [n, n], [n] -> [n]."""
    return np.linalg.solve(a, x)


def gradient(v: Array, w: Array, b: Array) -> Array:
    """Gradient by v of the mean of (tanh(b v) w)^2: [n, h], [h, 1], [rows, n]."""
    node = tensor.variable(v)
    outputs = operations.tanh(tensor.lift(b) @ node) @ tensor.lift(w)
    (found,) = tensor.gradients(operations.mean(outputs**2), [node])
    return found

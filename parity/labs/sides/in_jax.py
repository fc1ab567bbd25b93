"""Five operations of linear algebra in JAX."""

import jax
import jax.numpy as jnp
from jax import Array


def dot(x: Array, y: Array) -> Array:
    """Sum of products: [n], [n] -> ()."""
    return jnp.dot(x, y)


def matmul(a: Array, b: Array) -> Array:
    """Product of matrices: [m, n], [n, k] -> [m, k]."""
    return a @ b


def broadcast(a: Array, x: Array, y: Array) -> Array:
    """A row added to every row, a column times every column; [n, n], [n], [n]."""
    return (a + x[None, :]) * y[:, None]


def solve(a: Array, x: Array) -> Array:
    """The z with a z = x: [n, n], [n] -> [n]."""
    return jnp.linalg.solve(a, x)


def gradient(v: Array, w: Array, b: Array) -> Array:
    """Gradient by v of the mean of (tanh(b v) w)^2: [n, h], [h, 1], [rows, n]."""

    def loss(v: Array) -> Array:
        return jnp.mean((jnp.tanh(b @ v) @ w) ** 2)

    return jax.grad(loss)(v)

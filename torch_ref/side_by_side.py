"""Five operations of linear algebra in PyTorch, on numbers from a file.

    python -m torch_ref.side_by_side GIVEN.safetensors RESULTS.safetensors

parity/labs/sides/in_numpy.py and in_jax.py have the same functions. GIVEN holds their
arguments by name, RESULTS gets what they return.
"""

import pathlib
import sys

import numpy as np
import torch
from torch import Tensor as Array

from jaxnn.experiment.files import artifacts


def dot(x: Array, y: Array) -> Array:
    """Sum of products: [n], [n] -> ()."""
    return torch.dot(x, y)


def matmul(a: Array, b: Array) -> Array:
    """Product of matrices: [m, n], [n, k] -> [m, k]."""
    return a @ b


def broadcast(a: Array, x: Array, y: Array) -> Array:
    """A row added to every row, a column times every column; [n, n], [n], [n]."""
    return (a + x[None, :]) * y[:, None]


def solve(a: Array, x: Array) -> Array:
    """The z with a z = x: [n, n], [n] -> [n]."""
    return torch.linalg.solve(a, x)


def gradient(v: Array, w: Array, b: Array) -> Array:
    """Gradient by v of the mean of (tanh(b v) w)^2: [n, h], [h, 1], [rows, n]."""
    v = v.requires_grad_()
    loss = ((torch.tanh(b @ v) @ w) ** 2).mean()
    loss.backward()
    assert v.grad is not None
    return v.grad


def results(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what each operation makes of the arrays."""
    x, y, a, b, v, w = (torch.from_numpy(given[name]) for name in "xyabvw")
    found = {
        "dot": dot(x, y),
        "matmul": matmul(a, b),
        "broadcast": broadcast(a, x, y),
        "solve": solve(a, x),
        "gradient": gradient(v, w, b),
    }
    return {name: array.numpy() for name, array in found.items()}


def main(given: str, path: str) -> None:
    """Reads one file and writes the other."""
    found = results(artifacts.read_arrays(given, "GIVEN"))
    artifacts.write_arrays(pathlib.Path(path), found)


if __name__ == "__main__":
    main(*sys.argv[1:])

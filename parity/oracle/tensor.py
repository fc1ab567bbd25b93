"""Reverse-mode automatic differentiation of NumPy arrays (Linnainmaa 1970).

Each operation returns a tensor that remembers its arguments and one vector-Jacobian
product (VJP) per argument. With L a scalar computed later, the VJP maps dL/d(result) to
the result's contribution to dL/d(argument). The tensors themselves are the tape;
`gradients` walks it once, backwards.

This module has the operations that Python operators call; `operations` has the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np

VJP = Callable[[np.ndarray], np.ndarray]
TensorLike = Union["Tensor", np.ndarray, float]


class Tensor:
    """An array together with how it was computed.

    Args:
      value: [...] array, stored as float64.
      parents: (argument, VJP) of each tracked argument.
      tracked: True if gradients can be taken with respect to it.
    """

    # A recurrent network makes one node per operation, gate and time step.
    __slots__ = ("parents", "tracked", "value")

    # Makes NumPy return NotImplemented for `array + tensor`, so that Python calls
    # `Tensor.__radd__` instead of broadcasting over an object array.
    __array_ufunc__ = None

    def __init__(
        self,
        value: np.ndarray | float,
        parents: Sequence[tuple["Tensor", VJP]] = (),
        tracked: bool = False,
    ):
        self.value = np.asarray(value, np.float64)
        self.parents = tuple(parents)
        self.tracked = tracked

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    def __add__(self, other: TensorLike) -> "Tensor":
        return add(self, other)

    def __mul__(self, other: TensorLike) -> "Tensor":
        return multiply(self, other)

    def __pow__(self, exponent: TensorLike) -> "Tensor":
        return power(self, exponent)

    def __matmul__(self, other: TensorLike) -> "Tensor":
        return matmul(self, other)

    # Subtraction and division are built from the primitives, so that they need no VJP.

    def __neg__(self) -> "Tensor":
        return multiply(self, -1.0)

    def __sub__(self, other: TensorLike) -> "Tensor":
        return add(self, multiply(other, -1.0))

    def __rsub__(self, other: TensorLike) -> "Tensor":
        return add(other, multiply(self, -1.0))

    def __truediv__(self, other: TensorLike) -> "Tensor":
        return multiply(self, power(other, -1.0))

    def __rtruediv__(self, other: TensorLike) -> "Tensor":
        return multiply(other, power(self, -1.0))

    __radd__ = __add__
    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> "Tensor":
        return take(self, key)


def variable(value: np.ndarray | float) -> Tensor:
    """Returns a tensor that gradients can be taken with respect to."""
    return Tensor(value, tracked=True)


def lift(value: TensorLike) -> Tensor:
    """Returns a tensor unchanged and wraps an array or number as a constant."""
    return value if isinstance(value, Tensor) else Tensor(value)


def record(value: np.ndarray, *arguments: tuple[Tensor, VJP]) -> Tensor:
    """Returns the result of an operation, linked to its tracked arguments.

    Args:
      value: result.
      *arguments: pairs of an argument and its VJP.
    """
    # Constants are dropped: their VJPs never run and their arrays can be freed.
    parents = [(argument, vjp) for argument, vjp in arguments if argument.tracked]
    return Tensor(value, parents, tracked=bool(parents))


def gradients(output: Tensor, wanted: Sequence[Tensor]) -> list[np.ndarray]:
    """Returns d output / d w for each tensor w in `wanted`.

    The gradient is zero where the output does not depend on w.

    Args:
      output: () scalar.
      wanted: variables, or intermediate tensors.
    """
    wanted_ids = {id(tensor) for tensor in wanted}
    found = {}
    adjoints = {id(output): np.ones_like(output.value)}

    for tensor in reversed(topological(output)):
        # In reverse topological order this adjoint is complete: every use of the tensor
        # has been visited. Popping it frees the array early.
        adjoint = adjoints.pop(id(tensor))
        if id(tensor) in wanted_ids:
            found[id(tensor)] = adjoint

        for parent, vjp in tensor.parents:
            share = vjp(adjoint)
            # Not `+=`: a VJP may return its argument itself, as that of `add` does, and
            # an in-place sum would change the adjoint of another tensor.
            adjoints[id(parent)] = (
                adjoints[id(parent)] + share if id(parent) in adjoints else share
            )

    return [found.get(id(tensor), np.zeros_like(tensor.value)) for tensor in wanted]


def topological(output: Tensor) -> list[Tensor]:
    """Returns `output` and all tensors it depends on, arguments before results."""
    order = []
    seen = {id(output)}
    # Depth-first search with an explicit stack: recursion would fail at Python's limit
    # of about 1000 nested operations. Each entry resumes its own iterator of parents.
    stack = [(output, iter(output.parents))]

    while stack:
        tensor, parents = stack[-1]
        unseen = next((parent for parent, _ in parents if id(parent) not in seen), None)
        if unseen is None:
            order.append(tensor)
            stack.pop()
        else:
            seen.add(id(unseen))
            stack.append((unseen, iter(unseen.parents)))
    return order


def unbroadcast(adjoint: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums an adjoint [...] over broadcast axes, to the argument's own `shape`."""
    if adjoint.shape == shape:
        return adjoint

    # Axes that broadcasting put in front, then axes of size 1 that it stretched.
    added = tuple(range(adjoint.ndim - len(shape)))
    adjoint = adjoint.sum(axis=added)
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return adjoint.sum(axis=stretched, keepdims=True)


def add(x: TensorLike, y: TensorLike) -> Tensor:
    """x + y; dL/dx = dL/dy = dL/dz."""
    x = lift(x)
    y = lift(y)
    return record(
        x.value + y.value,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: unbroadcast(g, y.shape)),
    )


def multiply(x: TensorLike, y: TensorLike) -> Tensor:
    """x y, elementwise; dL/dx = dL/dz y."""
    x = lift(x)
    y = lift(y)
    return record(
        x.value * y.value,
        (x, lambda g: unbroadcast(g * y.value, x.shape)),
        (y, lambda g: unbroadcast(g * x.value, y.shape)),
    )


def power(x: TensorLike, y: TensorLike) -> Tensor:
    """x^y; dL/dx = dL/dz y x^(y - 1), 0 where y = 0; dL/dy = dL/dz x^y log x."""
    x = lift(x)
    y = lift(y)
    z = x.value**y.value

    def by_base(g: np.ndarray) -> np.ndarray:
        # At y = 0 any finite power will do, as it is multiplied by 0; x^(y - 1) itself
        # is infinite at x = 0, and 0 times infinity is nan.
        exponent = np.where(y.value == 0, 1, y.value - 1)
        return unbroadcast(g * y.value * x.value**exponent, x.shape)

    def by_exponent(g: np.ndarray) -> np.ndarray:
        return unbroadcast(g * z * np.log(x.value), y.shape)

    return record(z, (x, by_base), (y, by_exponent))


def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """x y for [..., n, m] and [..., m, k]; dL/dx = dL/dz y^T, dL/dy = x^T dL/dz."""
    x = lift(x)
    y = lift(y)
    return record(
        x.value @ y.value,
        (x, lambda g: unbroadcast(g @ y.value.swapaxes(-1, -2), x.shape)),
        (y, lambda g: unbroadcast(x.value.swapaxes(-1, -2) @ g, y.shape)),
    )


def take(x: Tensor, key: Any) -> Tensor:
    """x[key]; dL/dx sums dL/dz over all uses of an element.

    Args:
      x: [...] tensor.
      key: index, slice or integer array, or a tuple of these.
    """
    keys = key if isinstance(key, tuple) else (key,)

    def scatter(g: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x.value)
        if any(isinstance(part, np.ndarray) for part in keys):
            # An integer array may repeat an index, as a token does in a text;
            # `total[keys] += g` would count it once.
            np.add.at(total, keys, g)
        else:
            total[keys] = g
        return total

    return record(x.value[keys], (x, scatter))

"""Reverse-mode automatic differentiation of NumPy arrays (Linnainmaa 1970).

An operation on tensors returns a tensor that remembers its arguments and, for each, how
to carry a derivative back: with L a number computed later, the vector-Jacobian product
takes dL/d(result) to this result's share of dL/d(argument). The tensors are the tape;
`gradients` reads it once, backwards.
"""

from collections.abc import Callable, Sequence
from typing import Union

import numpy as np

VJP = Callable[[np.ndarray], np.ndarray]
TensorLike = Union["Tensor", np.ndarray, float]


class Tensor:
    """An array and how it was computed.

    Args:
      value: [...] float64.
      parents: (argument, vector-Jacobian product) of each argument that is tracked.
      tracked: whether derivatives with respect to it can be asked for.
    """

    __slots__ = ("parents", "tracked", "value")
    __array_ufunc__ = None  # array + tensor is left to the tensor

    def __init__(
        self,
        value: np.ndarray | float,
        parents: Sequence[tuple["Tensor", VJP]] = (),
        tracked: bool = False,
    ):
        self.value = np.asarray(value, np.float64)
        self.parents, self.tracked = tuple(parents), tracked

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
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

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, key) -> "Tensor":
        return take(self, key)


def variable(value: np.ndarray | float) -> Tensor:
    """A tensor that derivatives are wanted by."""
    return Tensor(value, tracked=True)


def lift(value: TensorLike) -> Tensor:
    """A tensor as it is; an array or number as a constant."""
    return value if isinstance(value, Tensor) else Tensor(value)


def record(value: np.ndarray, *arguments: tuple[Tensor, VJP]) -> Tensor:
    """The result of an operation. Constants among its arguments are forgotten, and with
    them their derivatives.

    Args:
      value: of the result.
      *arguments: each with its vector-Jacobian product.
    """
    parents = [(argument, vjp) for argument, vjp in arguments if argument.tracked]
    return Tensor(value, parents, tracked=bool(parents))


def gradients(output: Tensor, wanted: Sequence[Tensor]) -> list[np.ndarray]:
    """d output / d w for each wanted tensor w, zeros where the output does not depend
    on it.

    Args:
      output: () a number.
      wanted: variables, or anything between them and the output.
    """
    wanted_ids, found = {id(tensor) for tensor in wanted}, {}
    adjoints = {id(output): np.ones_like(output.value)}
    for tensor in reversed(topological(output)):
        adjoint = adjoints.pop(id(tensor))
        if id(tensor) in wanted_ids:
            found[id(tensor)] = adjoint
        for parent, vjp in tensor.parents:
            share = vjp(adjoint)
            adjoints[id(parent)] = (
                adjoints[id(parent)] + share if id(parent) in adjoints else share
            )
    return [found.get(id(tensor), np.zeros_like(tensor.value)) for tensor in wanted]


def topological(output: Tensor) -> list[Tensor]:
    """Every tensor that `output` depends on and itself, each after its arguments; a
    stack instead of recursion, so that the depth of a graph has no limit."""
    order, seen, stack = [], {id(output)}, [(output, iter(output.parents))]
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
    """The sum over the axes along which an argument of a shape was repeated: [...] ->
    [*shape]."""
    if adjoint.shape == shape:
        return adjoint
    adjoint = adjoint.sum(axis=tuple(range(adjoint.ndim - len(shape))))
    return adjoint.sum(
        axis=tuple(axis for axis, size in enumerate(shape) if size == 1), keepdims=True
    )


def add(x: TensorLike, y: TensorLike) -> Tensor:
    """x + y; dL/dx = dL/dz."""
    x, y = lift(x), lift(y)
    return record(
        x.value + y.value,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: unbroadcast(g, y.shape)),
    )


def multiply(x: TensorLike, y: TensorLike) -> Tensor:
    """x y, elementwise; dL/dx = dL/dz y."""
    x, y = lift(x), lift(y)
    return record(
        x.value * y.value,
        (x, lambda g: unbroadcast(g * y.value, x.shape)),
        (y, lambda g: unbroadcast(g * x.value, y.shape)),
    )


def power(x: TensorLike, y: TensorLike) -> Tensor:
    """x^y; dL/dx = dL/dz y x^(y - 1), 0 for y = 0 whatever x; dL/dy = dL/dz x^y log x."""
    x, y = lift(x), lift(y)
    z = x.value**y.value

    def by_base(g: np.ndarray) -> np.ndarray:
        return unbroadcast(
            g * y.value * x.value ** np.where(y.value == 0, 1, y.value - 1), x.shape
        )

    return record(
        z, (x, by_base), (y, lambda g: unbroadcast(g * z * np.log(x.value), y.shape))
    )


def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """x y of matrices [..., n, m] and [..., m, k]; dL/dx = dL/dz y^T, dL/dy = x^T
    dL/dz."""
    x, y = lift(x), lift(y)
    return record(
        x.value @ y.value,
        (x, lambda g: unbroadcast(g @ y.value.swapaxes(-1, -2), x.shape)),
        (y, lambda g: unbroadcast(x.value.swapaxes(-1, -2) @ g, y.shape)),
    )


def take(x: Tensor, key) -> Tensor:
    """x[key] for slices and arrays of places; dL/dx adds up dL/dz over the times that a
    place was taken."""

    keys = key if isinstance(key, tuple) else (key,)

    def scatter(g: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x.value)
        if any(isinstance(part, np.ndarray) for part in keys):
            np.add.at(total, keys, g)
        else:
            total[keys] = g  # slices take no place twice
        return total

    return record(x.value[keys], (x, scatter))

"""Moves what the layers of a network compute by as much as rounding may, to see on
which side of a kink it stands."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.experiment.patches import Patch, put
from jaxnn.models import rnn
from jaxnn.models.recurrence import CELLS, Cell


class Nudged(NamedTuple):
    """A model whose every layer's output is moved at random by as much as rounding may
    have moved it.

    Attributes:
      model: to wrap; has `apply` only.
      seed: of the draws.
      compute: the format of the forward pass.
    """

    model: nn.Module
    seed: jax.Array
    compute: np.dtype

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As `model.apply`, with the outputs of layers that hold a kernel, and of
        norms, and their gradients moved; and the gradients of a recurrence's gates."""
        keys = _keys(self.seed)

        def move(call, args, kwargs, context):
            output = call(*args, **kwargs)
            layer = context.module
            is_rounded = any(
                layer.has_variable("params", leaf)
                for leaf in ("kernel", "input_kernel", "scale")
            )
            if context.method_name != "__call__" or not is_rounded:
                return output
            bias = (
                layer.get_variable("params", "bias")
                if layer.has_variable("params", "bias")
                else jnp.zeros((1,))
            )
            bias = jnp.broadcast_to(bias.astype(output.dtype), output.shape)
            key, backward = jax.random.split(next(keys))
            return _with_moved_gradient(
                backward, output + _rounding(key, output, bias, self.compute)
            )

        with contextlib.ExitStack() as undo:
            put(
                undo,
                [Patch(rnn, "recur", lambda plain: _with_moved_gates(plain, keys))],
            )
            undo.enter_context(nn.intercept_methods(move))
            return self.model.apply(variables, *args, **kwargs)


def _keys(seed: jax.Array) -> Iterator[jax.Array]:
    return (
        jax.random.fold_in(jax.random.key(seed), number) for number in itertools.count()
    )


def _with_moved_gates(recur: Callable, keys: Iterator[jax.Array]) -> Callable:
    """oneDNN, which torch's LSTM runs on, adds up the gradients of both biases step
    after step and row after row."""

    def moved(
        cell: Cell, from_input: jax.Array, kernel: jax.Array, bias: jax.Array
    ) -> jax.Array:
        if cell is not CELLS["gru"]:  # whose gates do not take in both sums alike
            from_input, bias = from_input + bias[None, None], jnp.zeros_like(bias)
        return recur(cell, _with_moved_gradient(next(keys), from_input), kernel, bias)

    return moved


def _rounding(
    key: jax.Array, output: jax.Array, bias: jax.Array, compute: np.dtype
) -> jax.Array:
    """A draw of the error of x W + b: of rounding the product and the sum to `compute`,
    each at its own size, and of accumulating the product in float32, at the typical
    size of its parts."""
    stored, accumulated = _uniform(key, (2, *output.shape), output.dtype)
    exact, bias = jax.lax.stop_gradient((output, bias))
    typical = jnp.sqrt(jnp.mean(jnp.square(exact), axis=0, keepdims=True))
    return (
        stored * float(jnp.finfo(compute).eps) * (jnp.abs(exact) + jnp.abs(bias))
        + accumulated * float(jnp.finfo(jnp.float32).eps) * typical
    )


def _with_moved_gradient(key: jax.Array, output: jax.Array) -> jax.Array:
    """The output itself; its gradient is moved so that sums over its n rows change as
    much as they do when a float32 sum is taken row after row: by about a third of
    sqrt(n) ulps a row, for rows of random sign. XLA sums in a tree, torch's layer norm
    for one row after row, which is four times less exact at 500 rows."""
    rows = output.size // output.shape[-1]
    relative = float(jnp.finfo(jnp.float32).eps) * rows**0.5 / 3
    share = 1 + relative * _uniform(key, output.shape, output.dtype)
    return output * share + jax.lax.stop_gradient(output * (1 - share))


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Between -1 and 1, on a grid that costs half as much to draw."""
    return jax.random.uniform(key, shape, jnp.float32, -1, 1).astype(dtype)

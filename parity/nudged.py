"""Moves what the layers of a network compute by as much as rounding may, to see on which side of a kink it stands."""

import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Nudged(NamedTuple):
    """A model whose every layer's output is moved at random by as much as rounding may have moved it.

    Attributes:
      model: to wrap; has `apply` only.
      seed: of the draws.
      compute: the format of the forward pass.
    """

    model: nn.Module
    seed: jax.Array
    compute: np.dtype

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As `model.apply`, with the outputs of layers that hold a kernel, and of norms, and their gradients moved."""
        layers = itertools.count()

        def move(call, args, kwargs, context):
            output = call(*args, **kwargs)
            layer = context.module
            is_rounded = any(layer.has_variable("params", leaf) for leaf in ("kernel", "input_kernel", "scale"))
            if context.method_name != "__call__" or not is_rounded:
                return output
            bias = layer.get_variable("params", "bias") if layer.has_variable("params", "bias") else jnp.zeros((1,))
            bias = jnp.broadcast_to(bias.astype(output.dtype), output.shape)
            key, backward = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), next(layers)))
            return _with_moved_gradient(backward, output + _rounding(key, output, bias, self.compute))

        with nn.intercept_methods(move):
            return self.model.apply(variables, *args, **kwargs)


def _rounding(key: jax.Array, output: jax.Array, bias: jax.Array, compute: np.dtype) -> jax.Array:
    """A draw of the error of x W + b: of rounding the product and the sum to `compute`, each at its own size,
    and of accumulating the product in float32, at the typical size of its parts."""
    stored, accumulated = jax.random.uniform(key, (2, *output.shape), output.dtype, -1, 1)
    exact, bias = jax.lax.stop_gradient((output, bias))
    typical = jnp.sqrt(jnp.mean(jnp.square(exact), axis=0, keepdims=True))
    return (stored * float(jnp.finfo(compute).eps) * (jnp.abs(exact) + jnp.abs(bias))
            + accumulated * float(jnp.finfo(jnp.float32).eps) * typical)


def _with_moved_gradient(key: jax.Array, output: jax.Array) -> jax.Array:
    """The output itself; its gradient is moved so that sums over its n rows change as much as they do when a float32
    sum is taken row after row: by about a third of sqrt(n) ulps a row, for rows of random sign. XLA sums in a tree,
    torch's layer norm for one row after row, which is four times less exact at 500 rows."""
    rows = output.size // output.shape[-1]
    relative = float(jnp.finfo(jnp.float32).eps) * rows**0.5 / 3
    share = 1 + relative * jax.random.uniform(key, output.shape, output.dtype, -1, 1)
    return output * share + jax.lax.stop_gradient(output * (1 - share))

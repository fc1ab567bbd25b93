"""A model whose layers' outputs are moved by about their own rounding.

Shows on which side of a kink (a ReLU at zero, a maximum of equals) rounding may put a
step; see `noise.Kinks`.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import train_step
from jaxnn.experiment.catalogue import RECURRENT, TRANSFORMERS, is_own
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch, put
from jaxnn.models import rnn
from jaxnn.models.recurrence import Cell

ROUNDED_LEAVES = ("kernel", "input_kernel", "scale")
"""Parameters that a layer has whose output is a rounded sum: products and norms."""


KINKED_ACTIVATIONS = ("step", "relu", "leaky_relu")
KINKED_LOSSES = ("hinge", "multiclass_hinge", "perceptron")
SMOOTH_MODELS = ("linear", *RECURRENT, *TRANSFORMERS)
"""Models without a kink of their own, whatever the activation flag says."""


def has_kinks(experiment: Experiment) -> bool:
    """Returns True if rounding may make a gradient jump, somewhere in the network."""
    if experiment.loss in KINKED_LOSSES:
        return True
    if experiment.model == "mlp":
        return experiment.activation in KINKED_ACTIVATIONS
    return experiment.model not in SMOOTH_MODELS


def has_jumps(experiment: Experiment) -> bool:
    """Returns True if rounding may make the output of a layer jump."""
    return experiment.activation == "step" or is_own(experiment.model)


class NudgedModel(NamedTuple):
    """A model with every layer's output moved at random by about its rounding.

    Attributes:
      model: model to wrap; only `apply` is provided.
      seed: seed of the draws, possibly traced.
      compute: dtype of the forward pass whose rounding is imitated.
    """

    model: train_step.Model
    seed: jax.Array
    compute: np.dtype

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `model.apply(...)` with moved outputs and moved gradients.

        Moved are the outputs of layers that hold a kernel and of norms, the gradients
        of those outputs, and the gradients of a recurrence's gates.
        """
        keys = _keys(self.seed)

        def move(call, args, kwargs, context):
            output = call(*args, **kwargs)
            layer = context.module
            if context.method_name != "__call__" or not _rounds(layer):
                return output
            forward, backward = next(keys), next(keys)
            bias = jnp.broadcast_to(_bias(layer).astype(output.dtype), output.shape)
            moved = output + _rounding(forward, output, bias, self.compute)
            return _with_moved_gradient(backward, moved)

        with contextlib.ExitStack() as undo:
            gates = Patch(rnn, "recur", lambda plain: _with_moved_gates(plain, keys))
            put(undo, [gates])
            undo.enter_context(nn.intercept_methods(move))
            return self.model.apply(variables, *args, **kwargs)


def _rounds(layer: nn.Module) -> bool:
    return any(layer.has_variable("params", leaf) for leaf in ROUNDED_LEAVES)


def _bias(layer: nn.Module) -> jax.Array:
    if layer.has_variable("params", "bias"):
        return layer.get_variable("params", "bias")
    return jnp.zeros((1,))


def _keys(seed: jax.Array) -> Iterator[jax.Array]:
    """Yields the uint32 key of one draw after the other."""
    of_seed = _hash(jnp.asarray(seed).astype(jnp.uint32))
    return (_hash(of_seed ^ np.uint32(number)) for number in itertools.count())


def _with_moved_gates(recur: Callable, keys: Iterator[jax.Array]) -> Callable:
    """Returns `recur` with moved gradients of its gates.

    oneDNN, which torch's LSTM runs on, adds up the gradients of both biases step after
    step and row after row (MISMATCHES L12).
    """

    def moved(
        cell: Cell, from_input: jax.Array, kernel: jax.Array, bias: jax.Array
    ) -> jax.Array:
        # One sum of gates, so that both biases see the same moved gradient. A GRU's
        # candidate multiplies only the recurrent sum: there the two stay apart.
        if cell.adds_inputs:
            from_input = from_input + bias[None, None]
            bias = jnp.zeros_like(bias)
        from_input = _with_moved_gradient(next(keys), from_input)
        return recur(cell, from_input, kernel, bias)

    return moved


def _rounding(
    key: jax.Array, output: jax.Array, bias: jax.Array, compute: np.dtype
) -> jax.Array:
    """Draws an error of x W + b as large as rounding makes it.

    The product and the sum are rounded to the compute dtype, each at its own size; the
    product is accumulated in float32, at the typical size of its terms.
    """
    stored, accumulated = _uniform(key, (2, *output.shape), output.dtype)
    exact, bias = jax.lax.stop_gradient((output, bias))
    typical = jnp.sqrt(jnp.mean(jnp.square(exact), axis=0, keepdims=True))
    stored_eps = float(jnp.finfo(compute).eps)
    accumulated_eps = float(jnp.finfo(jnp.float32).eps)
    return (
        stored * stored_eps * (jnp.abs(exact) + jnp.abs(bias))
        + accumulated * accumulated_eps * typical
    )


def _with_moved_gradient(key: jax.Array, output: jax.Array) -> jax.Array:
    """Returns the output itself, whose gradient is moved at random.

    A gradient's sum over n rows then changes as much as it does when a float32 sum is
    taken row after row: by about sqrt(n) / 3 ulps a row, for rows of random sign. XLA
    sums in a tree; torch's layer norm sums row after row, which is four times less
    exact at 500 rows.
    """
    rows = output.size // output.shape[-1]
    relative = float(jnp.finfo(jnp.float32).eps) * rows**0.5 / 3
    share = 1 + relative * _uniform(key, output.shape, output.dtype)
    # The value is output * share + output * (1 - share); only the first term has a
    # gradient.
    return output * share + jax.lax.stop_gradient(output * (1 - share))


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Uniform on [-1, 1), drawn in float32: half the cost of drawing in float64.

    From a hash of the element's number. jax.random's loops over the rounds of a cipher,
    one for each layer, took XLA's CPU compiler 7 times as long as the rest of a CNN.
    """
    counter = jax.lax.iota(jnp.uint32, math.prod(shape))
    bits = jax.lax.bitcast_convert_type(_hash(_hash(counter) ^ key), jnp.int32)
    unit = bits.astype(jnp.float32) * np.float32(2**-31)
    return unit.reshape(shape).astype(dtype)


def _hash(x: jax.Array) -> jax.Array:
    """Mixes the bits of uint32 words (the finalizer of MurmurHash3, Appleby 2011).

    Zero stays zero, hence the constant.
    """
    x = x + np.uint32(0x9E3779B9)
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return x ^ x >> np.uint32(16)

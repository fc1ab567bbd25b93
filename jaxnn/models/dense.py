"""A dense layer that starts as an `Initializer` says.

torch_ref has no twin of this file: torch builds a Linear first and initializes it in
place (`torch_ref.models.build`).
"""

from typing import Any

import flax.linen as nn
from jax import Array, lax

from jaxnn.initializers import Initializer


def dense(x: Array, size: int, initializer: Initializer, name: str) -> Array:
    """Applies a Dense layer inside another module's compact `__call__`.

    Args:
      x: [..., features].
      size: width of the output.
      initializer: initial distribution of kernel and bias.
      name: name of the layer in the calling module.

    Returns:
      [..., size] outputs.
    """
    # A flax initializer sees only the shape of what it draws. torch's default bias
    # depends on the fan-in, which is known here.
    layer = nn.Dense(
        size,
        kernel_init=initializer.kernel,
        bias_init=initializer.bias(x.shape[-1]),
        dot_general=as_matrices,
        name=name,
    )
    return layer(x)


def as_matrices(x: Array, kernel: Array, _: Any, **options: Any) -> Array:
    """lax.dot_general of [..., features] and [features, size], as a product of two
    matrices.

    The kernel's gradient is then such a product too. With more axes XLA's CPU compiler
    first transposes a copy, and computes again what led to it: a training step of a
    Transformer of width 128 took 20 % longer.
    """
    rows = x.reshape(-1, x.shape[-1])
    y = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])

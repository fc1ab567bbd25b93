"""A dense layer that starts as an `Initializer` says.

torch_ref has no twin of this file: torch builds a Linear first and initializes it in
place (`torch_ref.models.build`).
"""

from typing import Any

import flax.linen as nn
from jax import Array

from jaxnn.initializers import Initializer
from jaxnn.models.products import product


def dense(
    x: Array, size: int, initializer: Initializer, name: str, use_bias: bool = True
) -> Array:
    """Applies a Dense layer inside another module's compact `__call__`.

    Args:
      x: [..., features].
      size: width of the output.
      initializer: initial distribution of kernel and bias.
      name: name of the layer in the calling module.
      use_bias: False for a matrix product alone.

    Returns:
      [..., size] outputs.
    """
    # A flax initializer sees only the shape of what it draws. torch's default bias
    # depends on the fan-in, which is known here.
    layer = nn.Dense(
        size,
        use_bias=use_bias,
        kernel_init=initializer.kernel,
        bias_init=initializer.bias(x.shape[-1]),
        dot_general=_dot_general,
        name=name,
    )
    return layer(x)


def _dot_general(x: Array, kernel: Array, _: Any, **options: Any) -> Array:
    """`product`, called as flax's Dense calls lax.dot_general."""
    return product(x, kernel, **options)

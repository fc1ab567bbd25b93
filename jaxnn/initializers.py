"""Initial kernels and biases by name, as flax initializers. Twin of torch_ref/initializers.py.

The twins draw from the same distributions, not the same numbers: the judge hands one
stack's parameters to the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers

Function = initializers.Initializer


class Initializer(NamedTuple):
    """How a layer starts.

    Attributes:
      kernel: (key, shape, dtype) -> array, for shape [..., in, out].
      bias: fan_in -> (key, shape, dtype) -> array.
    """

    kernel: Function
    bias: Callable[[int], Function]


def _zero_bias(fan_in: int) -> Function:
    del fan_in
    return initializers.zeros


def _torch_bias(fan_in: int) -> Function:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): torch.nn.Linear's bias."""
    bound = fan_in**-0.5

    def draw(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


lecun_normal = Initializer(initializers.lecun_normal(), _zero_bias)
"""Truncated normal of variance 1/fan_in (LeCun et al. 1998); flax's default."""

he_normal = Initializer(initializers.he_normal(), _zero_bias)
"""Truncated normal of variance 2/fan_in (He et al. 2015)."""

glorot_uniform = Initializer(initializers.glorot_uniform(), _zero_bias)
"""Uniform of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."""

torch_default = Initializer(initializers.variance_scaling(1 / 3, "fan_in", "uniform"), _torch_bias)
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias: torch.nn.Linear.reset_parameters."""

zeros = Initializer(initializers.zeros, _zero_bias)
"""Zeros."""

INITIALIZERS: dict[str, Initializer] = {
    "lecun_normal": lecun_normal,
    "he_normal": he_normal,
    "glorot_uniform": glorot_uniform,
    "torch_default": torch_default,
    "zeros": zeros,
}

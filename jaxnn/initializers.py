"""Initial kernels and biases by name, as flax initializers.

Twin of torch_ref/initializers.py. The twins draw from the same distributions, not the
same numbers: the judge hands the parameters of one stack to the other.

A kernel is [..., in, out]; leading axes are the window of a convolution, whose size
multiplies both fans. The [num, features] table of an embedding is the kernel of one-hot
rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers

Function = Callable[..., Array]


class Initializer(NamedTuple):
    """Initial distribution of a layer's parameters.

    Attributes:
      kernel: (key, shape, dtype) -> array, for shape [..., in, out].
      bias: fan_in -> (key, shape, dtype) -> array, for shape [out]; the fan_in of a
        convolution is height * width * in.
    """

    kernel: Function
    bias: Callable[[int], Function]


def _zero_bias(fan_in: int) -> Function:
    del fan_in
    return initializers.zeros


def _torch_bias(fan_in: int) -> Function:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the bias of torch's Linear and Conv2d."""
    bound = fan_in**-0.5

    def draw(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


# (scale, mode, distribution) -> kernel of variance scale / fan.
_scaled = initializers.variance_scaling

zeros = Initializer(initializers.zeros, _zero_bias)
"""Zeros."""

normal = Initializer(initializers.normal(0.02), _zero_bias)
"""N(0, 0.02^2), not truncated, whatever the shape.

DCGAN (Radford et al. 2016); GPT-2 (Radford et al. 2019).
"""

# Normal kernels of scaled variance are truncated at two deviations, and widened so that
# the variance after the cut is the one that is asked for.
lecun_normal = Initializer(_scaled(1, "fan_in", "truncated_normal"), _zero_bias)
"""Truncated normal of variance 1/fan_in (LeCun et al. 1998); flax's default."""

lecun_uniform = Initializer(_scaled(1, "fan_in", "uniform"), _zero_bias)
"""Uniform of variance 1/fan_in (LeCun et al. 1998)."""

glorot_normal = Initializer(_scaled(1, "fan_avg", "truncated_normal"), _zero_bias)
"""Truncated normal of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."""

glorot_uniform = Initializer(_scaled(1, "fan_avg", "uniform"), _zero_bias)
"""Uniform of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010)."""

he_normal = Initializer(_scaled(2, "fan_in", "truncated_normal"), _zero_bias)
"""Truncated normal of variance 2/fan_in (He et al. 2015)."""

he_uniform = Initializer(_scaled(2, "fan_in", "uniform"), _zero_bias)
"""Uniform of variance 2/fan_in (He et al. 2015)."""

orthogonal = Initializer(initializers.orthogonal(), _zero_bias)
"""Uniform among matrices [in, out] with orthonormal columns, or rows if in < out.

The window of a convolution counts with its inputs. Saxe et al. 2014.
"""

# reset_parameters of torch.nn.Linear and torch.nn.Conv2d: kaiming_uniform_(sqrt(5)) is
# this (https://github.com/pytorch/pytorch/issues/57109).
torch_default = Initializer(_scaled(1 / 3, "fan_in", "uniform"), _torch_bias)
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias, as in torch."""

INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "normal": normal,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "orthogonal": orthogonal,
    "torch_default": torch_default,
}

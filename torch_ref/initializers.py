"""Initial kernels and biases by name, in place on torch tensors. Twin of
jaxnn/initializers.py.

A weight's first axis is out, the second in; the axes after those are the window of a
convolution, whose size multiplies both fans. The [num, features] table of an embedding
is the kernel of one-hot rows and is passed transposed, as torch keeps every kernel:
`kernel(embedding.weight.T)`. Normal kernels of scaled variance are truncated at two
deviations and keep that variance after the cut.

The twins draw from the same distributions, not the same numbers: the judge hands one
stack's parameters to the other.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import init

Function = Callable[[torch.Tensor], torch.Tensor]


class Initializer(NamedTuple):
    """How a layer starts.

    Attributes:
      kernel: fills a weight [out, in, ...] in place.
      bias: fan_in -> a function that fills a bias [out] in place; the fan_in of a
        convolution is height * width * in.
    """

    kernel: Function
    bias: Callable[[int], Function]


def _zero_bias(fan_in: int) -> Function:
    del fan_in
    return init.zeros_


def _torch_bias(fan_in: int) -> Function:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): torch.nn.Linear's and torch.nn.Conv2d's bias."""
    bound = fan_in**-0.5
    return lambda bias: init.uniform_(bias, -bound, bound)


def _scaled(scale: float, mode: str, distribution: str) -> Function:
    """Variance scale / fan, as jax.nn.initializers.variance_scaling."""

    def fill(weight: torch.Tensor) -> torch.Tensor:
        fan_in, fan_out = (
            axis * weight[0, 0].numel() for axis in (weight.shape[1], weight.shape[0])
        )
        deviation = (
            scale / {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2}[mode]
        ) ** 0.5
        if distribution == "uniform":
            return init.uniform_(weight, -(3**0.5) * deviation, 3**0.5 * deviation)
        deviation /= (
            0.87962566103423978  # of a standard normal that is cut at two deviations
        )
        return init.trunc_normal_(weight, 0.0, deviation, -2 * deviation, 2 * deviation)

    return fill


zeros = Initializer(init.zeros_, _zero_bias)
"""Zeros."""

normal = Initializer(lambda weight: init.normal_(weight, 0.0, 0.02), _zero_bias)
"""N(0, 0.02^2), not truncated, whatever the shape (DCGAN, Radford et al. 2016; GPT-2,
Radford et al. 2019)."""

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

orthogonal = Initializer(init.orthogonal_, _zero_bias)
"""Uniform among matrices [out, all other axes] with orthonormal rows, or columns if
tall (Saxe et al. 2014)."""

torch_default = Initializer(_scaled(1 / 3, "fan_in", "uniform"), _torch_bias)
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernel and bias: reset_parameters of
torch.nn.Linear and torch.nn.Conv2d."""

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

"""Initial kernels and biases by name.

The distributions are those of jaxnn/initializers.py; the random numbers are not.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

TRUNCATED_DEVIATION = 0.87962566103423978
"""Standard deviation of a standard normal truncated to [-2, 2]; also in
`jax.nn.initializers.variance_scaling`."""


class Initializer(NamedTuple):
    """Distributions that the parameters of a layer are drawn from.

    Attributes:
      kernel: (generator, shape [..., in, out]) -> array.
      bias: fan_in -> (generator, shape) -> array.
    """

    kernel: Draw
    bias: Callable[[int], Draw]


def constant(value: float) -> Draw:
    """The same number everywhere."""
    return lambda rng, shape: np.full(shape, value)


def normal(deviation: float) -> Draw:
    """N(0, deviation^2), not truncated."""
    return lambda rng, shape: deviation * rng.standard_normal(shape)


def uniform(bound: float) -> Draw:
    """U(-bound, bound)."""
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


def scaled(variance: float, fan: str, distribution: str) -> Draw:
    """Mean 0 and variance `variance` / fan.

    Args:
      variance: numerator, e.g. 2 for He et al. 2015.
      fan: "fan_in", or "fan_avg" for the mean of fan_in and fan_out.
      distribution: "uniform", or "normal" truncated at two standard deviations.
    """

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        # The window of a convolution multiplies both fans.
        window = math.prod(shape[:-2])
        fan_in = shape[-2] * window
        fan_out = shape[-1] * window
        size = fan_in if fan == "fan_in" else (fan_in + fan_out) / 2
        deviation = math.sqrt(variance / size)

        if distribution == "uniform":
            # U(-b, b) has the standard deviation b / sqrt(3).
            return uniform(math.sqrt(3) * deviation)(rng, shape)
        # Truncation lowers the variance; the division restores it.
        return deviation / TRUNCATED_DEVIATION * _truncated_normal(rng, shape)

    return draw


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform over matrices [all other axes, out] with orthonormal columns.

    Wide matrices have orthonormal rows instead (Saxe et al. 2014).
    """
    rows = math.prod(shape[:-1])
    columns = shape[-1]
    tall = (max(rows, columns), min(rows, columns))
    q, r = np.linalg.qr(rng.standard_normal(tall))
    # LAPACK chooses the signs of R's diagonal, so Q alone is not uniformly distributed;
    # with a positive diagonal it is (Mezzadri 2007).
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    # Rejection: about 5 % of the values are drawn again in each round.
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(outside.sum())
    return values


def _zero_bias(fan_in: int) -> Draw:
    del fan_in
    return constant(0.0)


def _torch_bias(fan_in: int) -> Draw:
    return uniform(fan_in**-0.5)


# To add an initializer: one function above, unless an existing one will do, and one row
# here. The tests require the same keys and distributions as jaxnn's.
INITIALIZERS: dict[str, Initializer] = {
    "zeros": Initializer(constant(0.0), _zero_bias),
    "normal": Initializer(normal(0.02), _zero_bias),
    "lecun_normal": Initializer(scaled(1, "fan_in", "normal"), _zero_bias),
    "lecun_uniform": Initializer(scaled(1, "fan_in", "uniform"), _zero_bias),
    "glorot_normal": Initializer(scaled(1, "fan_avg", "normal"), _zero_bias),
    "glorot_uniform": Initializer(scaled(1, "fan_avg", "uniform"), _zero_bias),
    "he_normal": Initializer(scaled(2, "fan_in", "normal"), _zero_bias),
    "he_uniform": Initializer(scaled(2, "fan_in", "uniform"), _zero_bias),
    "orthogonal": Initializer(orthogonal, _zero_bias),
    # U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which is what kaiming_uniform(a=sqrt(5)) of
    # torch.nn.Linear.reset_parameters comes to; its variance is 1 / (3 fan_in).
    "torch_default": Initializer(scaled(1 / 3, "fan_in", "uniform"), _torch_bias),
}

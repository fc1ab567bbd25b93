"""Initial kernels and biases by name, from the distributions of jaxnn/initializers.py;
other draws of them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DEVIATION_AFTER_CUT = 0.87962566103423978
"""Standard deviation of a standard normal that is cut at two."""


class Initializer(NamedTuple):
    """How a layer starts.

    Attributes:
      kernel: (generator, shape [..., in, out]) -> array.
      bias: fan_in -> the same of a bias.
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
    """Mean 0 and `variance` over "fan_in" or "fan_avg", "uniform" or "normal" truncated
    at two deviations."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        window = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * window, shape[-1] * window
        deviation = math.sqrt(
            variance / (fan_in if fan == "fan_in" else (fan_in + fan_out) / 2)
        )
        if distribution == "uniform":
            return uniform(math.sqrt(3) * deviation)(rng, shape)
        return deviation / DEVIATION_AFTER_CUT * _truncated(rng, shape)

    return draw


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform among matrices [all other axes, out] with orthonormal columns, or rows if
    wide (Saxe et al. 2014)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)


def _truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(outside.sum())
    return values


def _zero_bias(fan_in: int) -> Draw:
    del fan_in
    return constant(0.0)


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
    "torch_default": Initializer(
        scaled(1 / 3, "fan_in", "uniform"), lambda fan_in: uniform(fan_in**-0.5)
    ),
}

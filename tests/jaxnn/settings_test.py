"""Tests of jaxnn/settings.py."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import settings


def test_zero_is_off_unless_the_device_alone_knows():
    assert settings.is_off(0.0)
    assert not settings.is_off(0.1)
    jax.eval_shape(lambda x: x if settings.is_off(x) else 2 * x, jnp.float32(0))
    assert not settings.is_off(jnp.float32(0))


def test_rounding_to_float32_is_the_same_of_numbers_and_arrays():
    number = settings.as_float32(0.999)
    assert isinstance(number, float)
    assert number == float(np.float32(0.999))
    with jax.enable_x64(True):
        array = settings.as_float32(jnp.asarray(0.999, jnp.float64))
        assert array.dtype == jnp.float64
        assert float(array) == number


def test_cast_is_the_same_of_numbers_and_arrays():
    for number in (0.3, 1 - 0.3):
        half = settings.cast(number, jnp.float16)
        assert half.dtype == np.float16
        assert half == settings.cast(jnp.float32(number), jnp.float16)

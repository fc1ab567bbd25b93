"""JAX as somebody's port expects it: its defaults, and products in full precision."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def of_a_port() -> Iterator[None]:
    """Holds what a port's mathematics must not depend on."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        # The default on GPUs and TPUs multiplies float32 matrices in fewer bits.
        jax.default_matmul_precision("highest"),
    ):
        yield

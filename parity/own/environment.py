"""JAX as somebody's port expects it: its defaults, and products in full precision."""

import contextlib
from collections.abc import Iterator

import jax

from jaxnn.experiment.data.cache import cache_folder


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


def keep_compiled() -> None:
    """Lets JAX keep compiled programs on disk, for a process that only judges."""
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

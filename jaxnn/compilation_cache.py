"""Compiled programs on disk, so that the next process need not compile them again."""

import jax

from jaxnn.experiment.data.cache import cache_folder


def keep_compiled() -> None:
    """Keeps programs of any size, in the folder that JAX was given or in jaxnn's own.

    JAX itself leaves out what compiles in less than a second.
    """
    # JAX makes the attributes of its options at import, unseen by type checkers.
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if folder is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

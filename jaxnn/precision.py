"""Dtypes of training. Twin of torch_ref/precision.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Policy(NamedTuple):
    """Dtypes of one `--precision`.

    Attributes:
      compute: dtype of the forward and backward pass.
      master: dtype of the master parameters, their moments and the loss.
    """

    compute: Any
    master: Any


# Half precision trains with float32 masters, as DeepSpeed does.
POLICIES: dict[str, Policy] = {
    "fp64": Policy(jnp.float64, jnp.float64),
    "fp32": Policy(jnp.float32, jnp.float32),
    "bf16": Policy(jnp.bfloat16, jnp.float32),
    "fp16": Policy(jnp.float16, jnp.float32),
}


def cast(tree: Any, dtype: Any) -> Any:
    """Casts the floating arrays of a pytree to `dtype`; integer arrays are kept."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def at_least_float32(x: Array) -> Array:
    """Casts float16 and bfloat16 to float32; float32 and float64 are kept."""
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)

"""Dropout masks that torch drew, played back where JAX would draw its own.

flax's Dropout, in linen and nnx, and functions of one's own draw a mask by
`jax.random.bernoulli`. While a pass is traced, that function returns the recorded masks
in their order.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.patches import Patch, put

CHANNELS_LAST = (0, 2, 3, 1)
"""Axes of torch's images and feature maps, in the order of flax."""


@contextlib.contextmanager
def played_back(masks: Sequence[Any]) -> Iterator[None]:
    """Holds `jax.random.bernoulli` to the recorded masks.

    Args:
      masks: bool arrays of one forward pass, True where kept, in the order of use.

    Raises:
      UserError: the port draws more or fewer masks, or one of another shape.
    """
    taken: list[Any] = []

    def make(plain: Callable) -> Callable:
        def bernoulli(key: Any, p: Any = 0.5, shape: Any = None, *args: Any, **kw: Any):
            del key, p, args, kw
            number = len(taken)
            taken.append(number)
            if number >= len(masks):
                raise UserError(
                    f"dropout: torch drew {len(masks)} masks in a forward pass, the "
                    "port draws more; set the same rates in both"
                )
            return _shaped(jnp.asarray(masks[number], bool), shape, number)

        return bernoulli

    with contextlib.ExitStack() as undo:
        put(undo, [Patch(jax.random, "bernoulli", make)])
        yield
    if len(taken) < len(masks):
        raise UserError(
            f"dropout: torch drew {len(masks)} masks in a forward pass, the port "
            f"{len(taken)}; call its Dropout layers in training mode, with the same "
            "rates"
        )


def _shaped(mask: jax.Array, shape: Any, number: int) -> jax.Array:
    """Returns a mask in the port's layout."""
    wanted = mask.shape if shape is None else tuple(shape)
    if mask.shape == wanted:
        return mask
    if mask.ndim == 4 and mask.transpose(CHANNELS_LAST).shape == wanted:
        return mask.transpose(CHANNELS_LAST)
    raise UserError(
        f"dropout: mask {number} of a forward pass is {mask.shape} in torch, {wanted} "
        "in the port; drop the same tensor in both"
    )

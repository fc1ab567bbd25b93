"""What a forward pass was given, by the names of its arguments."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from torch_ref.watch import arrays


class Inputs(NamedTuple):
    """The arguments of a forward pass.

    Attributes:
      values: dotted name -> array.
      digests: dotted name -> SHA-256 of what is too large to keep.
      unread: dotted name -> why there is no array.
    """

    values: dict[str, np.ndarray]
    digests: dict[str, np.ndarray]
    unread: dict[str, str]


def read(module: nn.Module, args: Any, kwargs: Mapping[str, Any], limit: int) -> Inputs:
    """Copies the arguments of a forward pass; those that are None are left out.

    Args:
      module: whose `forward` it is.
      args: as passed by place.
      kwargs: as passed by name.
      limit: bytes beyond which an argument is a digest.
    """
    found = Inputs({}, {}, {})
    for name, value in arrays.leaves(named(module, args, kwargs)):
        if value is not None:
            _add(found, name, value, limit)
    return found


def named(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Binds arguments to the names in `forward`; defaults are left out."""
    signature = _signature(type(module).forward)
    try:
        bound = dict(signature.bind(module, *args, **kwargs).arguments)
    except TypeError:
        # forward is about to say so itself.
        return dict(enumerate(args)) | dict(kwargs)  # type: ignore[return-value]
    bound.pop(next(iter(bound)))
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(parameter.name, {})
    return bound


@functools.lru_cache(maxsize=16)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _add(found: Inputs, name: str, value: Any, limit: int) -> None:
    is_tensor = isinstance(value, torch.Tensor)
    try:
        array = arrays.exact(value) if is_tensor else arrays.number(value)
    except (TypeError, RuntimeError):
        found.unread[name] = f"a {type(value).__name__} that is no array of numbers"
        return
    if array.nbytes > limit:
        found.digests[name] = arrays.digest(array)
    else:
        found.values[name] = array

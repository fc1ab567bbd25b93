"""Replacements of functions and values in place, to be taken back in the end."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Patch(NamedTuple):
    """A replacement.

    Attributes:
      holder: module, class, object or dict.
      name: of its attribute or key.
      make: the present value -> the one in its place.
    """

    holder: Any
    name: str
    make: Callable[[Any], Any]


def put(undo: contextlib.ExitStack, patches: Iterable[Patch]) -> None:
    """Puts replacements in place, the last on top, to be taken back by `undo`."""
    for holder, name, make in patches:
        own = holder if isinstance(holder, dict) else vars(holder)
        is_own = name in own
        present = own[name] if is_own else getattr(holder, name)
        undo.callback(_set, holder, name, present) if is_own else undo.callback(
            delattr, holder, name
        )
        _set(holder, name, make(present))


def _set(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = value
    else:
        setattr(holder, name, value)

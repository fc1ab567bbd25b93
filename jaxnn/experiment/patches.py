"""Reversible monkey patches: replace functions and values, restore them on exit."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Patch(NamedTuple):
    """One replacement.

    Attributes:
      holder: module, class, object or dict to patch.
      name: attribute of the holder, or key if it is a dict.
      make: maps the current value to its replacement.
    """

    holder: Any
    name: str
    make: Callable[[Any], Any]


def put(undo: contextlib.ExitStack, patches: Iterable[Patch]) -> None:
    """Applies patches in order; closing `undo` restores the original values.

    Patches of the same name stack: a later one wraps what an earlier one made.
    """
    for holder, name, make in patches:
        # vars() instead of getattr: it returns a staticmethod or property of a class as
        # the object to put back, and tells own attributes from inherited ones.
        own = holder if isinstance(holder, dict) else vars(holder)
        if name in own:
            present = own[name]
            undo.callback(_set, holder, name, present)
        else:
            # An inherited attribute is restored by deleting the one that hides it.
            present = getattr(holder, name)
            undo.callback(delattr, holder, name)
        _set(holder, name, make(present))


def _set(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = value
    else:
        setattr(holder, name, value)

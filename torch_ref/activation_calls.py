"""Tells who listens what an activation was given and what it returned. Twin of
jaxnn/activation_calls.py."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

Listener = Callable[[Any, Any], None]
"""(inputs, outputs) of a call."""

_listeners: list[Listener] = []


@functools.cache
def told(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns an activation whose calls the listeners hear of."""

    @functools.wraps(activation)
    def call(x: Any) -> Any:
        y = activation(x)
        for listener in _listeners:
            listener(x, y)
        return y

    return call


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Has a listener hear of the calls within the context."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)

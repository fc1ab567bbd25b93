"""Recorded inputs as the arguments of somebody's function: by name, else by place."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxnn.experiment.errors import UserError

TRAINING = {"deterministic": False, "train": True, "training": True}
"""Arguments by which flax modules are told that they are trained -> value."""

Arguments = tuple[list[Any], dict[str, Any]]
"""Positional and keyword arguments."""


def bind(
    function: Callable,
    what: str,
    named: Mapping[str, Any],
    unnamed: Sequence[Any] = (),
    skip: int = 1,
) -> Arguments:
    """Returns arguments for a function, taken from what was recorded.

    A parameter whose name was recorded gets that value. The others that have no default
    get the unnamed values in order, then the named ones that no parameter took. One
    that tells the training mode gets it.

    Args:
      function: what is to be called.
      what: name of the function in messages.
      named: recorded inputs of the torch module, by argument.
      unnamed: recorded values without a name: what the loss took besides outputs.
      skip: leading parameters that the caller gives itself (self, params, outputs).

    Raises:
      UserError: more parameters have no default than values were recorded.
    """
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [*named.values(), *unnamed], {}

    keywords: dict[str, Any] = {}
    wanting: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.name in named:
            keywords[parameter.name] = named[parameter.name]
        elif parameter.name in TRAINING:
            keywords[parameter.name] = TRAINING[parameter.name]
        elif parameter.default is parameter.empty:
            wanting.append(parameter.name)

    free = [*unnamed, *(value for name, value in named.items() if name not in keywords)]
    if len(wanting) > len(free):
        raise UserError(_too_few(what, wanting[len(free)], named, unnamed))
    return _in_order(parameters, keywords | dict(zip(wanting, free)))


def _in_order(
    parameters: Sequence[inspect.Parameter], keywords: dict[str, Any]
) -> Arguments:
    """Moves what can only be given by place out of the keywords."""
    places = [
        keywords.pop(parameter.name)
        for parameter in parameters
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in keywords
    ]
    return places, keywords


def _too_few(
    what: str, parameter: str, named: Mapping[str, Any], unnamed: Sequence[Any]
) -> str:
    recorded = ", ".join(named) or "nothing"
    more = f" and {len(unnamed)} more for its loss" if unnamed else ""
    return (
        f"{what}: its argument {parameter!r} is none of what torch's forward was given "
        f"({recorded}{more}); name it as there, or give it a default"
    )

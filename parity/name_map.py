"""Parameter names of a trace <-> those of somebody's own step functions; what does not
match is paired by shape."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError


class Names:
    """A map between two sets of parameter names.

    Args:
      to_own: name in the trace -> own name; a name that is left out is the same in
        both.
    """

    def __init__(self, to_own: Mapping[str, str]):
        self._own, self._trace = (
            dict(to_own),
            {own: name for name, own in to_own.items()},
        )
        if len(self._own) != len(self._trace):
            twice = next(
                own for own in self._trace if list(self._own.values()).count(own) > 1
            )
            raise UserError(
                f"name_map: {twice} stands for several names of the trace; tied "
                "weights are one parameter, record them once"
            )

    def to_own(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The trace's parameters by their own names."""
        return {self._own.get(name, name): array for name, array in arrays.items()}

    def to_trace(
        self, outputs: Mapping[str, Any], params: Mapping[str, np.ndarray], kind: str
    ) -> dict[str, np.ndarray]:
        """The functions' outputs by the trace's names, as float64 arrays.

        Args:
          outputs: "KIND/NAME" or "loss" -> array.
          params: the trace's parameters, each of which must be among the outputs of a
            kind.
          kind: "grads" or "updated".

        Raises:
          UserError: a parameter has no output, or an output no parameter; pairs of one
            shape are suggested.
        """
        named = {
            self._renamed(name): np.asarray(array, np.float64)
            for name, array in outputs.items()
        }
        found = {
            name.removeprefix(f"{kind}/"): array
            for name, array in named.items()
            if name.startswith(f"{kind}/")
        }
        if found.keys() != params.keys():
            raise UserError(_complaint(params, found, kind))
        return named

    def _renamed(self, name: str) -> str:
        for kind in (
            "grads/",
            "updated/",
            "updated_moments/first/",
            "updated_moments/second/",
        ):
            if name.startswith(kind):
                own = name.removeprefix(kind)
                return kind + self._trace.get(own, own)
        return name


def suggestions(
    left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Names of `left` that `right` lacks -> the one of `right` that may be meant.

    Of several of one shape the nearest in value is taken, else the first in order; each
    is suggested once.
    """
    missing = [name for name in left if name not in right]
    free = [name for name in right if name not in left]
    found = {}
    for name in missing:
        alike = [other for other in free if right[other].shape == left[name].shape]
        if alike:
            found[name] = min(
                alike,
                key=lambda other: float(
                    np.linalg.norm((right[other] - left[name]).ravel())
                ),
            )
            free.remove(found[name])
    return found


def _complaint(
    params: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], kind: str
) -> str:
    pairs = suggestions(params, found)
    if pairs:
        hint = ", ".join(f"{name!r}: {own!r}" for name, own in pairs.items())
        return (
            "name_map: the trace and the step name parameters differently; by shape "
            f"it may be {{{hint}}}"
        )
    name = sorted(params.keys() ^ found.keys())[0]
    side = (
        f"the step returns no {kind}/{name}"
        if name in params
        else f"the trace has no params/{name}"
    )
    return f"name_map: {side}; map it or record it"

"""Names of parameters in a trace and in somebody's own step functions.

What does not match is paired by shape, as a suggestion.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError

KINDS = ("grads/", "updated/", "updated_moments/first/", "updated_moments/second/")
"""Prefixes of outputs that carry a parameter's name."""


class Names:
    """A one-to-one map between two sets of parameter names.

    Args:
      to_own: name in the trace -> own name; a name that is left out is the same in
        both.

    Raises:
      UserError: one own name stands for several names of the trace.
    """

    def __init__(self, to_own: Mapping[str, str]):
        self._own = dict(to_own)
        self._trace = {own: name for name, own in to_own.items()}
        if len(self._own) != len(self._trace):
            owns = list(self._own.values())
            twice = next(own for own in self._trace if owns.count(own) > 1)
            raise UserError(
                f"name_map: {twice} stands for several names of the trace; tied "
                "weights are one parameter, record them once"
            )

    def to_own(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the trace's parameters by their own names."""
        return {self._own.get(name, name): array for name, array in arrays.items()}

    def to_trace(
        self, outputs: Mapping[str, Any], params: Mapping[str, np.ndarray], kind: str
    ) -> dict[str, np.ndarray]:
        """Returns the functions' outputs by the trace's names, as float64 arrays.

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
        for kind in KINDS:
            if name.startswith(kind):
                own = name.removeprefix(kind)
                return kind + self._trace.get(own, own)
        return name


def suggestions(
    left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Returns names of `left` that `right` lacks -> what each may be in `right`.

    Of several of one shape the nearest in value is taken, else the first in order; each
    is suggested once.
    """
    free = [name for name in right if name not in left]
    found = {}
    for name, array in left.items():
        if name in right:
            continue
        distances = {
            other: float(np.linalg.norm((right[other] - array).ravel()))
            for other in free
            if right[other].shape == array.shape
        }
        if distances:
            found[name] = min(distances, key=lambda other: distances[other])
            free.remove(found[name])
    return found


def _complaint(
    params: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], kind: str
) -> str:
    pairs = suggestions(params, found)
    if pairs:
        hint = ", ".join(f"{name!r}: {own!r}" for name, own in pairs.items())
        return (
            "name_map: the trace and the step name parameters differently; by shape it "
            f"may be {{{hint}}}"
        )
    name = min(params.keys() ^ found.keys())
    if name in params:
        return f"name_map: the step returns no {kind}/{name}; map it or record it"
    return f"name_map: the trace has no params/{name}; map it or record it"

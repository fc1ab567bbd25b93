"""A function apply(params, *inputs) behind one call."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.own.networks.binding import bind
from parity.own.networks.network import NO_CHANGE, Attributes, Call, Change, Leaves
from parity.own.tree import Structure


class FunctionNetwork:
    """A function apply(params, *inputs); its layers cannot be watched."""

    def __init__(self, apply: Callable, structure: Structure):
        self._apply = apply
        self._structure = structure

    def __call__(
        self,
        leaves: Leaves,
        inputs: Mapping[str, Any],
        exact: bool,
        change: Change = NO_CHANGE,
    ) -> Call:
        """See `Network`."""
        places, keywords = bind(self._apply, "model", inputs)
        tree = self._structure.unflatten(leaves)
        return Call(self._apply(tree, *places, **keywords), OrderedDict(), {})

    def attributes(self, names: Sequence[str]) -> Attributes:
        """See `Network`; a function's layers cannot be seen."""
        return {}

    def kinds(self) -> dict[str, str]:
        """See `Network`."""
        return {}

    def module_of(self, leaf: str) -> str:
        """See `Network`."""
        return "/".join(leaf.split("/")[:-1])

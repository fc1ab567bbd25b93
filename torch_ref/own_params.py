"""Names of the parameters of a network of one's own.

A file with `convert` brings its own map; without it the rules of params_io.py hold,
and what is a parameter of one's own class keeps its name and layout.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.weight_map import WeightMap

MAP = "own_map"
"""Attribute of the network that holds its `OwnMap`, or None."""
PARAMS = "params"
STATS = "batch_stats"


class OwnMap:
    """Names and layouts by a file's `convert`.

    Args:
      model: torch's network.
      convert: {torch name: array} -> flax's parameters, flat or nested, or
        {"params": ..., "batch_stats": ...}.

    Raises:
      UserError: `convert` does more than to move entries, or leaves parameters out.
    """

    def __init__(self, model: nn.Module, convert: Callable[..., Any]):
        shapes = {
            name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
        }
        self._weights = WeightMap.from_convert(
            shapes, lambda arrays: _variables(convert(arrays))
        )
        self._require_moves_only()
        for name, _ in model.named_parameters():
            if name in self._weights.unused:
                raise UserError(
                    f"convert: {name} of torch's class is not, or not wholly, in "
                    "flax's parameters"
                )

    def names(self, kind: str) -> dict[str, str]:
        """Returns {torch name: flax name}, the first of several, of PARAMS or STATS."""
        names: dict[str, str] = {}
        for target, sources in self._weights.origins.items():
            first, _, name = target.partition("/")
            for source in sources if first == kind else ():
                names.setdefault(source, name)
        return {name: names[name] for name in self._weights.sources if name in names}

    def layers(self) -> dict[str, str]:
        """Returns {torch layer: flax layer} of those that hold the same parameters."""
        pairs = {
            (source.rpartition(".")[0], target.partition("/")[2].rpartition("/")[0])
            for target, sources in self._weights.origins.items()
            for source in sources
        }
        theirs = [theirs for theirs, _ in pairs]
        ours = [ours for _, ours in pairs]
        return {
            left: right
            for left, right in pairs
            if left and theirs.count(left) == 1 and ours.count(right) == 1
        }

    def shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        """Returns {flax name: shape} of PARAMS or STATS."""
        sources = {name: part.source for name, part in self._weights.targets.items()}
        chosen = trace.select(sources, kind)
        return {name: source.shape for name, source in chosen.items()}

    def to_flax(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns arrays by flax's names and in its layouts."""
        converted = self._weights.apply(arrays)
        return {name.partition("/")[2]: array for name, array in converted.items()}

    def to_torch(
        self, arrays: Mapping[str, np.ndarray], kind: str
    ) -> dict[str, np.ndarray]:
        """Inverse of `to_flax`, of PARAMS or STATS."""
        named = {f"{kind}/{name}": array for name, array in arrays.items()}
        return self._weights.invert(named)

    def _require_moves_only(self) -> None:
        for name, part in self._weights.targets.items():
            if not part.only_moves():
                raise UserError(
                    f"convert: {name} is scaled or shifted, or has constants; an "
                    "optimizer would take other steps, only move entries"
                )
        for name, other in self._weights.repeated.items():
            raise UserError(
                f"convert: {name} holds an entry of {other} again; tie the weights in "
                "both networks"
            )


def name_own(model: nn.Module, convert: Callable[..., Any] | None) -> None:
    """Marks a network as one of one's own, with the names of `convert`, if any.

    Raises:
      UserError: `convert` is no map.
    """
    setattr(model, MAP, OwnMap(model, convert) if convert else None)


def is_own(model: nn.Module) -> bool:
    """Returns whether a network is one of one's own."""
    return MAP in vars(model)


def map_of(model: nn.Module) -> OwnMap | None:
    """Returns the map of a network whose file has `convert`, else None."""
    return vars(model).get(MAP)


def _variables(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves by "params/NAME" and "batch_stats/NAME"."""
    flat = trace.flatten(tree)
    if {name.partition("/")[0] for name in flat} <= {PARAMS, STATS}:
        return flat
    return {f"{PARAMS}/{name}": leaf for name, leaf in flat.items()}

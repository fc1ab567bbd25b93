"""The state_dict of a recorded torch module, for the converter of a port."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.files.weight_map import WeightMap
from parity.noise import Tensors
from parity.own.tree import Structure


class Converted(NamedTuple):
    """What a converter makes of a recorded module.

    Attributes:
      weights: where each entry of the port's leaves comes from.
      structure: the tree that the leaves stand in.
    """

    weights: WeightMap
    structure: Structure


def convert_with(
    convert: Callable[[Any], Any], step: Tensors, ties: Mapping[str, str]
) -> Converted:
    """Returns the map that a converter follows on a recorded state_dict.

    Args:
      convert: state_dict -> parameter tree, of nested dicts or an nnx.State.
      step: a recorded step in torch's names.
      ties: second name of a shared parameter -> its first.

    Raises:
      UserError: the converter fails or does more than to rearrange.
    """
    sources = state_of(step)
    numbers = {n: a for n, a in sources.items() if a.dtype.kind in "fV"}
    fixed = {n: a for n, a in sources.items() if n not in numbers}
    structures: list[Structure] = []

    def on_flat(arrays: dict[str, Any]) -> dict[str, Any]:
        like = next(iter(arrays.values()))
        whole = {**arrays, **{name: _as(like, array) for name, array in fixed.items()}}
        whole |= {name: arrays[first] for name, first in ties.items()}
        tree = convert(whole)
        structures.append(Structure(tree))
        return structures[0].flatten(tree)

    shapes = {name: array.shape for name, array in numbers.items()}
    weights = _with_torch_if_needed(shapes, on_flat)
    return Converted(weights, structures[0])


def state_of(step: Tensors) -> Tensors:
    """Returns parameters and buffers of a recorded step, by torch's names."""
    return select(step, "params") | select(step, "buffers")


def _with_torch_if_needed(shapes: Any, on_flat: Callable) -> WeightMap:
    """A converter may use what only torch's tensors have, without importing torch."""
    try:
        return WeightMap.from_convert(shapes, on_flat)
    except UserError:
        if "torch" in sys.modules or importlib.util.find_spec("torch") is None:
            raise
    importlib.import_module("torch")
    return WeightMap.from_convert(shapes, on_flat)


def _as(like: Any, array: np.ndarray) -> Any:
    """Returns an array in the library of another one."""
    if hasattr(like, "detach"):
        return sys.modules["torch"].from_numpy(array.copy())
    return array

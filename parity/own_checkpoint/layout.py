"""A port laid beside a checkpoint: which leaf is which parameter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import nnx
from rich.console import Console

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.files.weight_map import WeightMap
from parity.own import propose
from parity.own.foreign import in_one_line
from parity.own.state_dict import convert_with
from parity.own.tree import Structure, only
from parity.own_checkpoint.torch_half import Held

FLAX_PARAMS = "params"


class Layout(NamedTuple):
    """Which leaf of a port is which tensor of torch.

    Attributes:
      weights: where each leaf's entries come from.
      structure: the tree that `convert` makes.
      optimized: the tree that optax is given, parameters alone, of names.
    """

    weights: WeightMap
    structure: Structure
    optimized: Structure


def lay(port: Mapping[str, Any], held: Held, console: Console) -> Layout:
    """Returns the layout; prints it where the port has no `convert`.

    Args:
      port: what the port's file defines.
      held: what the checkpoint holds.
      console: printed to.

    Raises:
      UserError: the converter does more than to rearrange, or one side lacks something.
    """
    step = ordered(held)
    leaves = model_leaves(port["model"], port["inputs"])
    convert = port["convert"]
    if convert is None:
        convert = _proposed(leaves, step, console)
    if isinstance(convert, Mapping):
        convert = propose.from_origins(convert)
    weights, structure = convert_with(convert, step, held.about["ties"])
    shapes = {name: part.source.shape for name, part in weights.targets.items()}
    _require_whole(weights, select(step, "params"))
    if leaves is not None:
        _require_equal(shapes, leaves)
    params = set(select(step, "params"))
    kept = [n for n, needs in weights.origins.items() if needs & params or not needs]
    return Layout(weights, structure, _without_holes(only(structure, kept)))


def ordered(held: Held) -> dict[str, np.ndarray]:
    """Returns parameters and buffers in the order of torch's state_dict."""
    names = [f"{k}/{n}" for n in held.about["order"] for k in ("params", "buffers")]
    return {name: held.arrays[name] for name in names if name in held.arrays}


def model_leaves(model: Any, inputs: Any) -> dict[str, tuple[int, ...]] | None:
    """Returns {leaf: shape} of a flax module; None if it cannot be known.

    Args:
      model: nnx module, or linen module with the inputs of one call.
      inputs: tuple, or dict by argument; None if the file defines none.
    """
    if isinstance(model, nnx.Module):
        return propose.state_shapes(model)
    if not isinstance(model, nn.Module) or inputs is None:
        return None
    named = inputs if isinstance(inputs, Mapping) else dict(enumerate(inputs))
    with in_one_line("inputs"):
        return propose.linen_shapes(model, {str(n): x for n, x in named.items()})


def _proposed(
    leaves: Mapping[str, tuple[int, ...]] | None,
    step: dict[str, np.ndarray],
    console: Console,
) -> Any:
    if leaves is None:
        raise UserError(
            "--port: it defines no `convert`, and a model whose leaves have no names "
            "until it is called; define convert(state_dict), or a flax model and "
            "`inputs`, a tuple of arrays it can be called with"
        )
    return propose.from_names(leaves, step, {}, console)


def _require_whole(weights: WeightMap, params: Mapping[str, np.ndarray]) -> None:
    """Raises UserError unless parameters are all there, each entry as it is."""
    for name, count in weights.unused.items():
        if name in params:
            raise UserError(
                f"convert: {count} of {params[name].size} entries of {name} are in no "
                "leaf; a checkpoint's parameters must all have a place"
            )
    for leaf, part in weights.targets.items():
        scaled = (part.source >= 0) & ((part.factor != 1) | (part.constant != 0))
        if scaled.any():
            raise UserError(
                f"convert: {leaf} is scaled or shifted, {part.factor[scaled][0]:g} "
                "times torch's; moments do not go along, convert must only rearrange"
            )


def _require_equal(
    shapes: Mapping[str, tuple[int, ...]], leaves: Mapping[str, tuple[int, ...]]
) -> None:
    for name in [*leaves, *shapes]:
        here, there = shapes.get(name), leaves.get(name)
        if here != there:
            raise UserError(
                f"convert: {name} is {there or 'unknown'} in the model, "
                f"{here or 'missing'} in what convert makes"
            )


def _without_holes(structure: Structure) -> Structure:
    """Drops from dicts what optax is not given, as nnx does."""
    tree = structure.unflatten({name: name for name in structure.names})
    return Structure(_pruned(tree), structure.prefix)


def _pruned(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    held = {key: _pruned(value) for key, value in tree.items()}
    return {k: v for k, v in held.items() if v is not None and v != {}}


def moved(weights: WeightMap, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns {leaf: values of parameters}, float32."""
    return _single(weights.apply(arrays, "value"))


def moved_moments(weights: WeightMap, arrays: Mapping[str, np.ndarray]) -> dict:
    """Returns {leaf: values of a moment}, float32, 0 where a leaf is a constant."""
    return _single(weights.apply(arrays, "delta"))


def _single(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}


def differing_ties(
    weights: WeightMap, leaves: Mapping[str, np.ndarray]
) -> Sequence[tuple[str, str]]:
    """Returns the leaves that hold one tensor of torch and are no longer equal."""
    back = weights.invert(leaves, "value")
    again = weights.apply(back, "value")
    return [
        (leaf, first)
        for leaf, first in weights.repeated.items()
        if leaf in again and not np.array_equal(again[leaf], leaves[leaf])
    ]

"""Proposes where the leaves of a port come from, where no converter says so.

Names and shapes decide: a leaf is paired with the parameter whose shape fits, by a
rearrangement that is known for its kind of layer, and whose name is most alike. What
was taken is printed as a dict that can be pasted and corrected; `convert` may be such a
dict.
"""

import difflib
import pprint
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import nnx
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, unflatten
from parity.noise import Tensors
from parity.own.networks.binding import bind
from parity.own.passes import passes_of
from parity.own.state_dict import state_of
from parity.own.tree import Structure

ROLES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
"""Last part of a flax name -> that of torch's."""
KEPT_AXES = ("Conv1D", "Embedding")
"""Classes of torch's modules whose matrices flax has in the same order."""
IMPOSSIBLE = 1e6

Axes = tuple[int, ...]
Shapes = Mapping[str, tuple[int, ...]]


class Origin(NamedTuple):
    """Where a leaf comes from.

    Attributes:
      name: torch's parameter or buffer.
      axes: its axes, in the order of the leaf.
      shape: shape of the leaf.
    """

    name: str
    axes: Axes
    shape: tuple[int, ...]


def converter(trace: Reader, model: Any, console: Console) -> Callable[[Any], Any]:
    """Returns a converter made of the proposed map, and prints the map.

    Raises:
      UserError: the model's leaves are not known, or one has no counterpart.
    """
    step = trace.read(0)
    leaves = leaf_shapes(model, step)
    return from_names(leaves, step, trace.meta.get("modules", {}), console)


def from_names(
    leaves: Shapes,
    step: Tensors,
    kinds: Mapping[str, str],
    console: Console,
) -> Callable[[Any], Any]:
    """Returns a converter made of the proposed map, and prints the map.

    Args:
      leaves: shapes of the port's leaves.
      step: "params/NAME" and "buffers/NAME" by torch's names.
      kinds: path of a torch module -> its class.
      console: printed to.

    Raises:
      UserError: a leaf has no counterpart.
    """
    sources = {n: a.shape for n, a in state_of(step).items() if a.dtype.kind in "fV"}
    origins = propose(leaves, sources, kinds)
    console.print(
        "no convert was given; by names and shapes it may be", highlight=False
    )
    console.out(f"convert = {spelled(origins)}", highlight=False)
    return from_origins(origins)


def from_origins(origins: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Returns the converter of a map: leaf -> (name, axes[, shape]) or name."""

    def convert(state: Mapping[str, Any]) -> dict[str, Any]:
        return unflatten({leaf: _taken(state, o) for leaf, o in origins.items()})

    return convert


def propose(
    leaves: Shapes, sources: Shapes, kinds: Mapping[str, str]
) -> dict[str, Origin]:
    """Returns {leaf: where it comes from}.

    Args:
      leaves: shapes of the port's leaves.
      sources: shapes of torch's parameters and buffers.
      kinds: path of a torch module -> its class.

    Raises:
      UserError: a leaf has no counterpart.
    """
    names, others = list(leaves), list(sources)
    costs = np.array(
        [
            [_cost(leaf, leaves[leaf], name, sources[name], kinds) for name in others]
            for leaf in names
        ]
    )
    # A tensor that torch ties may serve two leaves.
    doubled = np.concatenate([costs, costs + 1], axis=1)
    rows, columns = linear_sum_assignment(np.minimum(doubled, IMPOSSIBLE))
    found = {}
    for row, column in zip(rows, columns):
        leaf, name = names[row], others[column % len(others)]
        if doubled[row, column] >= IMPOSSIBLE:
            raise UserError(
                f"convert: no tensor of torch fits {leaf} {leaves[leaf]}; give "
                "convert(state_dict), which makes it"
            )
        axes = _axes(leaves[leaf], sources[name], leaf, kinds.get(_module(name), ""))
        assert axes is not None, "an impossible pair was taken"
        found[leaf] = Origin(name, axes, leaves[leaf])
    return found


def spelled(origins: Mapping[str, Origin]) -> str:
    """Returns the map as Python: names alone where nothing is rearranged."""
    plain = {leaf: _spelled(origin) for leaf, origin in origins.items()}
    return pprint.pformat(plain, width=88, sort_dicts=False)


def _spelled(origin: Origin) -> Any:
    if len(origin.axes) != len(origin.shape):
        return tuple(origin)
    if origin.axes == tuple(range(len(origin.axes))):
        return origin.name
    return origin.name, origin.axes


def leaf_shapes(model: Any, step: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns {leaf: shape} of a flax module.

    Raises:
      UserError: a function's parameters have no names until they are given.
    """
    if isinstance(model, nnx.Module):
        return state_shapes(model)
    if not isinstance(model, nn.Module):
        raise UserError(
            "convert: a function's parameters have no names of their own; give "
            "convert(state_dict), which makes them"
        )
    return linen_shapes(model, passes_of(step, 1)[0].inputs)


def state_shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Returns {leaf: shape} of an nnx module, which holds its parameters."""
    return _shapes(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))


def linen_shapes(
    model: nn.Module, inputs: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Returns {leaf: shape} of a linen module, given inputs of one call by argument."""
    places, keywords = bind(type(model).__call__, "model", inputs)
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    variables = jax.eval_shape(lambda: model.init(keys, *places, **keywords))
    variables = nn.meta.unbox(variables)
    bare = set(variables) == {"params"}
    return _shapes(variables["params"] if bare else variables)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    structure = Structure(tree)
    return {name: leaf.shape for name, leaf in structure.flatten(tree).items()}


def _taken(state: Mapping[str, Any], origin: Any) -> Any:
    if isinstance(origin, str):
        return state[origin]
    name, axes, *shape = origin
    array = state[name]
    permuted = (
        array.permute(axes) if hasattr(array, "permute") else array.transpose(axes)
    )
    return permuted.reshape(shape[0]) if shape else permuted


def _cost(
    leaf: str,
    shape: tuple[int, ...],
    name: str,
    other: tuple[int, ...],
    kinds: Mapping[str, str],
) -> float:
    """Returns how unlike two names are, in [0, 2]; IMPOSSIBLE if shapes forbid it."""
    if _axes(shape, other, leaf, kinds.get(_module(name), "")) is None:
        return IMPOSSIBLE
    left, right = list(_words(leaf)), list(_words(name))
    likeness = difflib.SequenceMatcher(None, left, right, autojunk=False).ratio()
    wanted = ROLES.get(left[-1], left[-1])
    has_role = name.rpartition(".")[2] == wanted
    return 1 - likeness + (0 if has_role else 1)


def _words(name: str) -> Iterator[str]:
    """Yields the words and numbers of a name; words of one letter count as well."""
    for word in re.split(r"[./_]", name.removeprefix("params/")):
        yield from re.findall(r"\d+|[A-Za-z]+", word)


def _axes(
    leaf_shape: tuple[int, ...], shape: tuple[int, ...], leaf: str, kind: str
) -> Axes | None:
    """Returns the order in which a tensor's axes make the leaf; None if none does."""
    same = tuple(range(len(shape)))
    if len(shape) == 2 and leaf.endswith("embedding"):
        orders = [same]
    elif len(shape) == 2:
        orders = [same] if kind in KEPT_AXES else [(1, 0)]
    elif len(shape) > 2 and leaf.endswith("kernel"):
        orders = [(*same[2:], 1, 0)]
    else:
        orders = [same]
    for axes in orders:
        moved = tuple(shape[axis] for axis in axes)
        if moved == leaf_shape or (
            np.prod(moved) == np.prod(leaf_shape) and len(leaf_shape) > len(shape) >= 1
        ):
            return axes
    return None


def _module(name: str) -> str:
    return name.rpartition(".")[0]

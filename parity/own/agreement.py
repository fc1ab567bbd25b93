"""Whether a port, its converter and the recorded module have the same parameters.

flax overlooks a leaf that no layer asks for, and keeps the initial value of a variable
that it is not given: the judgement would be of another network than the user's.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from flax import nnx

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from parity.noise import Tensors
from parity.own import propose
from parity.own.foreign import in_one_line
from parity.own.state_dict import Converted

PREFIX = "params/"
JUDGED = (PREFIX, "batch_stats/")
"""Collections of flax.linen that a recording must fill."""

Shapes = dict[str, tuple[int, ...]]


def require_agreement(model: Any, converted: Converted, step: Tensors) -> None:
    """Checks names and shapes before anything is compiled.

    Args:
      model: the port's model.
      converted: what its converter returns.
      step: a recorded step in torch's names.

    Raises:
      UserError: one side lacks a parameter, or has it in another shape.
    """
    _require_sources(converted, step)
    if not isinstance(model, nn.Module | nnx.Module):
        return
    with in_one_line("model"):
        expected = propose.leaf_shapes(model, step)
    found = {n: part.source.shape for n, part in converted.weights.targets.items()}
    if isinstance(model, nn.Module):
        expected, found = _in_collections(expected), _in_collections(found)
    _require_leaves(expected, found)


def _require_leaves(expected: Shapes, found: Shapes) -> None:
    for leaf, shape in expected.items():
        if leaf not in found:
            raise UserError(
                f"convert: it returns no {_short(leaf)}, which the model has"
                + _hint(leaf)
            )
        if found[leaf] != shape:
            raise UserError(
                f"convert: {_short(leaf)} is {found[leaf]}, the model has it in shape "
                f"{shape}"
            )
    # A convert may set other variables of a module than those that were asked for.
    extra = [n for n in found if n not in expected and n.startswith(PREFIX)]
    if extra:
        known = ", ".join(map(_short, list(expected)[:6]))
        raise UserError(
            f"convert: {_short(extra[0])} is no parameter of the model; it has {known}"
            f"{', ...' if len(expected) > 6 else ''}"
        )


def _hint(leaf: str) -> str:
    if not leaf.startswith(JUDGED[1]):
        return ""
    return '; return {"params": ..., "batch_stats": ...}, made of torch\'s buffers'


def _require_sources(converted: Converted, step: Tensors) -> None:
    """Refuses a converter that forgets a parameter that torch trains."""
    weights = converted.weights
    used = set().union(*weights.origins.values())
    for name, gradient in select(step, "grads").items():
        if name in weights.sources and name not in used and gradient.any():
            raise UserError(
                f"convert: torch trains {name}, which no leaf of the port is made of"
            )


def _in_collections(shapes: Mapping[str, Any]) -> Shapes:
    """Returns leaves by their names among flax's variables."""
    has_collections = any(name.startswith(PREFIX) for name in shapes)
    prefix = "" if has_collections else PREFIX
    named = {prefix + name: shape for name, shape in shapes.items()}
    return {name: s for name, s in named.items() if name.startswith(JUDGED)}


def _short(leaf: str) -> str:
    return leaf.removeprefix(PREFIX)

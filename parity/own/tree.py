"""A user's parameter tree as a flat mapping of names, and back."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
from flax import nnx

from jaxnn.experiment.errors import UserError


class Structure:
    """The shape of a tree: where each name stands in it.

    Args:
      tree: any pytree of arrays; an nnx.State counts as the nested dict that it holds.
      prefix: put before every name: where the tree stands in a larger one.

    Attributes:
      names: "/"-joined paths of the leaves, in the order of the tree.
      prefix: as given.
    """

    def __init__(self, tree: Any, prefix: str = ""):
        tree = plain(tree)
        self.prefix = prefix
        paths, self._definition = jax.tree_util.tree_flatten_with_path(tree)
        self.names = [prefix + _name(path) for path, _ in paths]
        if not self.names:
            raise UserError("convert: it returned no arrays; return the parameter tree")

    def flatten(self, tree: Any) -> dict[str, Any]:
        """Returns {name: leaf} of a tree of this structure.

        Raises:
          UserError: the tree has another structure.
        """
        leaves, definition = jax.tree_util.tree_flatten(plain(tree))
        if definition != self._definition:
            raise UserError(
                "convert: it returned trees of two structures for two state_dicts; its "
                "structure must not depend on the values"
            )
        return dict(zip(self.names, leaves))

    def unflatten(self, leaves: Mapping[str, Any]) -> Any:
        """Returns the tree that holds these leaves."""
        values = [leaves[name] for name in self.names]
        return jax.tree_util.tree_unflatten(self._definition, values)


def only(structure: Structure, kept: Collection[str]) -> Structure:
    """Returns the structure without the leaves that are not kept, as optax is given it.

    The "params" of flax's variables stand for themselves. Elsewhere what is left out
    becomes None, which JAX takes for a branch without leaves.
    """
    tree = structure.unflatten({name: name for name in structure.names})
    prefix = ""
    if isinstance(tree, Mapping) and "params" in tree:
        tree = tree["params"]
        prefix = "params/"
    pruned = jax.tree.map(lambda name: name if name in kept else None, tree)
    return Structure(pruned, prefix)


def plain(tree: Any) -> Any:
    """Returns the nested dict of an nnx.State; other trees as they are."""
    return nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else tree


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(_key(entry)) for entry in path)


def _key(entry: Any) -> Any:
    """Returns the key of one step of a pytree's path, whatever its container."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return entry

"""The trained part of a network's parameters under `--freeze`, as a pytree of its own.

A part is a nested dict with some of the leaves of the whole. Without the flag it is the
whole. See jaxnn/experiment/freezing.py for what freezing means. Twin of
torch_ref/freezing.py.
"""

from collections.abc import Mapping
from typing import Any

from jaxnn.experiment import freezing
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment


def trained(experiment: Experiment, params: Any) -> Any:
    """Returns the parameters that are trained."""
    if not experiment.freeze:
        return params
    return trace.unflatten(freezing.trained(experiment, trace.flatten(params)))


def part(tree: Any, like: Any) -> Any:
    """Returns what a tree has at the leaves of a part."""
    if not isinstance(like, Mapping):
        return tree
    return {key: part(tree[key], like[key]) for key in like}


def merged(tree: Any, part: Any) -> Any:
    """Returns a tree with the leaves of a part in place of its own."""
    if not isinstance(part, Mapping):
        return part
    return {**tree, **{key: merged(tree[key], part[key]) for key in part}}

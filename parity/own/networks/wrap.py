"""The network behind what somebody gives as a model."""

from typing import Any

import flax.linen as nn
from flax import nnx

from jaxnn.experiment.errors import UserError
from parity.own.networks.function import FunctionNetwork
from parity.own.networks.linen import LinenNetwork
from parity.own.networks.network import Network
from parity.own.networks.nnx import NnxNetwork
from parity.own.tree import Structure


def wrap(model: Any, structure: Structure) -> Network:
    """Returns the network behind a flax module or a function.

    Args:
      model: flax.linen module, flax.nnx module, or apply(params, *inputs).
      structure: structure of its parameter tree.

    Raises:
      UserError: it is none of the three, a class of them, or lacks a leaf.
    """
    if isinstance(model, type):
        name = model.__name__
        raise UserError(f"model: {name} is a class; give {name}(...), one of it")
    if isinstance(model, nn.Module):
        return LinenNetwork(model, structure)
    if isinstance(model, nnx.Module):
        return NnxNetwork(model, structure)
    if callable(model):
        return FunctionNetwork(model, structure)
    raise UserError(
        f"model: a {type(model).__name__} is no flax.linen module, no flax.nnx module "
        "and no function apply(params, *inputs)"
    )

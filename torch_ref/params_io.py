"""torch's named tensors <-> flat arrays under Flax's names and layouts; every transpose lives here.

Names map mechanically: `hidden_0.weight` of a Linear is `hidden_0/kernel`, transposed to
[in, out]. The map is total: an entry without a partner is an error that names it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from jaxnn.experiment.config import UserError


def flax_names(model: nn.Module) -> dict[str, str]:
    """{torch name: Flax name} for every parameter, in the order of `model.named_parameters()`."""
    names = {}
    for path, layer in model.named_modules():
        for leaf, _ in layer.named_parameters(recurse=False):
            names[f"{path}.{leaf}"] = "/".join([*path.split("."), _LEAVES[type(layer)][leaf]])
    return names


def to_flax(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors shaped like the model's parameters, by torch name -> flat arrays in Flax's layouts.

    Serves parameters, gradients and moments alike.
    """
    names = flax_names(model)
    return {names[name]: np.ascontiguousarray(_transpose(tensor.detach(), names[name]).float().cpu().numpy())
            for name, tensor in tensors.items()}


def load(model: nn.Module, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copies flat Flax arrays into the model's parameters, in place.

    Args:
      model: any floating dtype.
      arrays: Flax name -> array.
      source: where they came from, named in errors.

    Raises:
      UserError: an entry is missing, unused, or of another shape.
    """
    names = flax_names(model)
    params = dict(model.named_parameters())
    for name in sorted(set(names.values()) ^ arrays.keys()):
        fault = "not the model's" if name in arrays else "missing"
        raise UserError(f"--init_params: {name} is {fault} in {source}")
    for torch_name, name in names.items():
        value = _transpose(torch.from_numpy(np.array(arrays[name])), name)
        if value.shape != params[torch_name].shape:
            raise UserError(f"--init_params: {name} is {tuple(arrays[name].shape)} in {source}, "
                            f"{tuple(_transpose(params[torch_name], name).shape)} in the model")
        params[torch_name].data.copy_(value)


def _transpose(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Between torch's layout and Flax's, either way: a Linear weight [out, in] <-> [in, out]."""
    return tensor.T if name.endswith("/kernel") else tensor


_LEAVES: dict[type, dict[str, str]] = {nn.Linear: {"weight": "kernel", "bias": "bias"}}

"""torch's named tensors <-> flat arrays under flax's names and layouts.

Every transpose between the stacks is here. Names map mechanically: `hidden_0.weight` of
a Linear is `hidden_0/kernel`, transposed to [in, out]; `norm_0.running_var`, a buffer,
is `norm_0/var` of the running statistics. The maps are total: an entry without a
partner is an error that names it.

jaxnn has no twin of this file: its names and layouts are the canonical ones.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jaxnn.experiment.errors import UserError
from torch_ref.precision import at_least_float32


class Leaf(NamedTuple):
    """What a tensor of a torch layer is in flax.

    Attributes:
      name: last part of its flax name.
      axes: torch's axes in flax's order; empty if the order is the same.
    """

    name: str
    axes: tuple[int, ...] = ()


def flax_names(model: nn.Module) -> dict[str, str]:
    """Returns {torch name: flax name} of every parameter, in torch's order.

    Raises:
      UserError: a parameter has no name in flax.
    """
    return _names(model, (name for name, _ in model.named_parameters()))


def flax_stats_names(model: nn.Module) -> dict[str, str]:
    """Returns {torch name: flax name} of every running statistic, in torch's order.

    Raises:
      UserError: a buffer has no name in flax.
    """
    return _names(model, (name for name, _ in _stats(model)))


def to_flax(
    model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, np.ndarray]:
    """Copies tensors to flat arrays in flax's layouts.

    Args:
      model: the model whose parameters or statistics the tensors are shaped like.
      tensors: torch name -> parameter, gradient, moment or running statistic.

    Returns:
      {flax name: array}; float16 and bfloat16 come out as float32.
    """
    names = _names(model, tensors)
    return {
        names[name]: _in_flax(tensor, _leaf(model, name))
        for name, tensor in tensors.items()
    }


def stats_to_flax(model: nn.Module) -> dict[str, np.ndarray]:
    """Copies the running statistics to flat arrays under flax's names.

    Returns:
      {flax name: array}, empty without batch normalization.
    """
    return to_flax(model, dict(_stats(model)))


def load(model: nn.Module, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copies flat flax arrays into the model's parameters, in place.

    Args:
      model: model of any floating dtype.
      arrays: flax name -> array.
      source: where the arrays come from, for error messages.

    Raises:
      UserError: an entry is missing, unused, or of another shape.
    """
    _fill(model, dict(model.named_parameters()), arrays, source)


def load_stats(model: nn.Module, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copies flat flax arrays into the model's running statistics, in place.

    Arguments and errors are those of `load`.
    """
    _fill(model, dict(_stats(model)), arrays, source)


def _stats(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    # torch's count of batches is used only with a momentum of None; flax has none.
    return (
        (name, buffer)
        for name, buffer in model.named_buffers()
        if not name.endswith("num_batches_tracked")
    )


def _names(model: nn.Module, torch_names: Iterable[str]) -> dict[str, str]:
    """Returns {torch name: flax name}."""
    names = {}
    for name in torch_names:
        *layers, _ = name.split(".")
        names[name] = "/".join([*layers, _leaf(model, name).name])
    return names


def _leaf(model: nn.Module, torch_name: str) -> Leaf:
    path, _, leaf = torch_name.rpartition(".")
    layer = type(model.get_submodule(path))
    # Our layers derive from torch's.
    for kind in layer.__mro__:
        if leaf in LEAVES.get(kind, {}):
            return LEAVES[kind][leaf]
    raise UserError(
        f"--model: {torch_name} of {layer.__name__} has no name in Flax; add it to "
        "torch_ref/params_io.py"
    )


def _in_flax(tensor: torch.Tensor, leaf: Leaf) -> np.ndarray:
    tensor = at_least_float32(tensor.detach())
    if leaf.axes:
        tensor = tensor.permute(leaf.axes)
    # A copy, in C order: what `permute` and, on a CPU, `cpu` return are views.
    return np.array(tensor.cpu(), order="C")


def _fill(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    arrays: Mapping[str, np.ndarray],
    source: str,
) -> None:
    names = _names(model, tensors)
    for name in sorted(set(names.values()) ^ arrays.keys()):
        fault = "not the model's" if name in arrays else "missing"
        raise UserError(f"--init_params: {name} is {fault} in {source}")
    for torch_name, name in names.items():
        value = torch.from_numpy(np.array(arrays[name]))
        axes = _leaf(model, torch_name).axes
        # A permuted view, so that copying into it fills the tensor itself.
        tensor = tensors[torch_name].data
        target = tensor.permute(axes) if axes else tensor
        if value.shape != target.shape:
            raise UserError(
                f"--init_params: {name} is {tuple(value.shape)} in {source}, "
                f"{tuple(target.shape)} in the model"
            )
        target.copy_(value)


_MATRIX = (1, 0)
_RECURRENT = {
    "weight_ih_l0": Leaf("input_kernel", _MATRIX),
    "weight_hh_l0": Leaf("recurrent_kernel", _MATRIX),
    "bias_ih_l0": Leaf("input_bias"),
    "bias_hh_l0": Leaf("recurrent_bias"),
}

LEAVES: dict[type[nn.Module], dict[str, Leaf]] = {
    nn.Linear: {"weight": Leaf("kernel", _MATRIX), "bias": Leaf("bias")},
    # [out, in, height, width] -> [height, width, in, out].
    nn.Conv2d: {"weight": Leaf("kernel", (2, 3, 1, 0)), "bias": Leaf("bias")},
    _BatchNorm: {
        "weight": Leaf("scale"),
        "bias": Leaf("bias"),
        "running_mean": Leaf("mean"),
        "running_var": Leaf("var"),
    },
    nn.LayerNorm: {"weight": Leaf("scale"), "bias": Leaf("bias")},
    nn.Embedding: {"weight": Leaf("embedding")},
    nn.RNNBase: _RECURRENT,
}
"""Layer type, or one that it derives from -> {torch's leaf: flax's}."""

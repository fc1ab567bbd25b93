"""torch's named tensors <-> flat arrays under flax's names and layouts.

Every transpose between the stacks is here. Names map mechanically: `hidden_0.weight` of
a Linear is `hidden_0/kernel`, transposed to [in, out]; `norm_0.running_var`, a buffer,
is `norm_0/var` of the running statistics. The maps are total: an entry without a
partner is an error that names it. own_params.py has those of a network of one's own.

jaxnn has no twin of this file: its names and layouts are the canonical ones.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from jaxnn.experiment.errors import UserError
from torch_ref import own_params
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
    own = own_params.map_of(model)
    if own:
        return own.names(own_params.PARAMS)
    return _names(model, (name for name, _ in model.named_parameters()))


def flax_stats_names(model: nn.Module) -> dict[str, str]:
    """Returns {torch name: flax name} of every running statistic, in torch's order.

    Raises:
      UserError: a buffer has no name in flax.
    """
    own = own_params.map_of(model)
    if own:
        return own.names(own_params.STATS)
    return _names(model, _stats(model))


def layer_names(model: nn.Module) -> dict[str, str]:
    """Returns {torch name: flax name} of the layers that both networks have."""
    own = own_params.map_of(model)
    if own:
        return own.layers()
    names = (name for name, _ in model.named_modules())
    return {name: name.replace(".", "/") for name in names}


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
    own = own_params.map_of(model)
    if own:
        return own.to_flax({name: _in_flax(tensors[name], _SAME) for name in tensors})
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
    return to_flax(model, _stats(model))


def load(model: nn.Module, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copies flat flax arrays into the model's parameters, in place.

    Args:
      model: model of any floating dtype.
      arrays: flax name -> array.
      source: where the arrays come from, for error messages.

    Raises:
      UserError: an entry is missing, unused, or of another shape.
    """
    tensors = dict(model.named_parameters())
    _fill(model, own_params.PARAMS, tensors, arrays, source)


def load_stats(model: nn.Module, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Copies flat flax arrays into the model's running statistics, in place.

    Arguments and errors are those of `load`.
    """
    _fill(model, own_params.STATS, _stats(model), arrays, source)


def _stats(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the running statistics by torch's names."""
    # torch's count of batches is used only with a momentum of None; flax has none.
    buffers = {
        name: buffer
        for name, buffer in model.named_buffers()
        if not name.endswith("num_batches_tracked")
    }
    # One's own network may have buffers of any purpose.
    own = own_params.map_of(model)
    if own:
        return {name: buffers[name] for name in own.names(own_params.STATS)}
    if own_params.is_own(model):
        return {name: buffers[name] for name in buffers if _is_normed(model, name)}
    return buffers


def _is_normed(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), _BatchNorm)


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
    if own_params.is_own(model):
        return _own_leaf(torch_name, layer)
    raise UserError(
        f"--model: {torch_name} of {layer.__name__} has no name in Flax; add it to "
        "torch_ref/params_io.py"
    )


def _own_leaf(torch_name: str, layer: type[nn.Module]) -> Leaf:
    """Returns what a tensor of a class of one's own is in flax: the same."""
    if layer.__module__.startswith("torch."):
        raise UserError(
            f"--model: {torch_name} of {layer.__name__} has no usual name in flax; "
            f"write convert(state_dict) in the file of the network"
        )
    return Leaf(torch_name.rpartition(".")[2])


def _in_flax(tensor: torch.Tensor, leaf: Leaf) -> np.ndarray:
    tensor = at_least_float32(tensor.detach())
    if leaf.axes:
        tensor = tensor.permute(leaf.axes)
    # A copy, in C order: what `permute` and, on a CPU, `cpu` return are views.
    return np.array(tensor.cpu(), order="C")


def _fill(
    model: nn.Module,
    kind: str,
    tensors: Mapping[str, torch.Tensor],
    arrays: Mapping[str, np.ndarray],
    source: str,
) -> None:
    own = own_params.map_of(model)
    if own:
        _check(arrays, own.shapes(kind), source)
        targets, arrays = tensors, own.to_torch(arrays, kind)
    else:
        targets = _views(model, tensors)
        shapes = {name: tuple(view.shape) for name, view in targets.items()}
        _check(arrays, shapes, source)
    for name, array in arrays.items():
        targets[name].data.copy_(torch.from_numpy(np.array(array)))


def _views(
    model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Returns tensors by flax's names; copying into one fills the tensor itself."""
    views = {}
    for torch_name, name in _names(model, tensors).items():
        axes = _leaf(model, torch_name).axes
        tensor = tensors[torch_name].data
        views[name] = tensor.permute(axes) if axes else tensor
    return views


def _check(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
) -> None:
    """Raises UserError unless there is an array of each name and shape, and no more."""
    for name in sorted(shapes.keys() ^ arrays.keys()):
        fault = "not the model's" if name in arrays else "missing"
        raise UserError(f"--init_params: {name} is {fault} in {source}")
    for name, shape in shapes.items():
        if np.shape(arrays[name]) != shape:
            raise UserError(
                f"--init_params: {name} is {np.shape(arrays[name])} in {source}, "
                f"{shape} in the model"
            )


_SAME = Leaf("")
_MATRIX = (1, 0)
_RECURRENT = {
    "weight_ih_l0": Leaf("input_kernel", _MATRIX),
    "weight_hh_l0": Leaf("recurrent_kernel", _MATRIX),
    "bias_ih_l0": Leaf("input_bias"),
    "bias_hh_l0": Leaf("recurrent_bias"),
}

LEAVES: dict[type[nn.Module], dict[str, Leaf]] = {
    nn.Linear: {"weight": Leaf("kernel", _MATRIX), "bias": Leaf("bias")},
    nn.Conv1d: {"weight": Leaf("kernel", (2, 1, 0)), "bias": Leaf("bias")},
    # [out, in, height, width] -> [height, width, in, out].
    nn.Conv2d: {"weight": Leaf("kernel", (2, 3, 1, 0)), "bias": Leaf("bias")},
    _BatchNorm: {
        "weight": Leaf("scale"),
        "bias": Leaf("bias"),
        "running_mean": Leaf("mean"),
        "running_var": Leaf("var"),
    },
    nn.LayerNorm: {"weight": Leaf("scale"), "bias": Leaf("bias")},
    nn.GroupNorm: {"weight": Leaf("scale"), "bias": Leaf("bias")},
    nn.RMSNorm: {"weight": Leaf("scale")},
    nn.Embedding: {"weight": Leaf("embedding")},
    nn.RNNBase: _RECURRENT,
}
"""Layer type, or one that it derives from -> {torch's leaf: flax's}."""

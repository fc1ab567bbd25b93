"""Whole tensors out of the pieces that ZeRO's ranks hold, many in one exchange.

DeepSpeed's own readers, `safe_get_full_*`, make an exchange for every tensor. What is
returned here may be what trains: a single rank needs no exchange.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from torch_ref import batches

Params = Mapping[str, torch.nn.Parameter]
Tensors = dict[str, torch.Tensor]


class Piece(NamedTuple):
    """What a rank holds of a tensor.

    Attributes:
      start: its place in the flat tensor.
      values: flat.
    """

    start: int
    values: torch.Tensor


Read = Callable[[Any], Piece | None]
"""Returns this rank's piece of a parameter or of what belongs to it, if it has one."""


def masters(params: Params) -> Tensors:
    """Returns the whole masters of those parameters that ZeRO has cut."""
    return whole(params, _state)


def states(params: Params, key: str, flats: Mapping[int, torch.Tensor]) -> Tensors:
    """Returns the whole of a kind of optimizer state.

    Args:
      params: by name.
      key: the kind.
      flats: id of a parameter -> this rank's share of that state of its group. What
        DeepSpeed itself links to parameters at stages 1 and 2 may be out of date.
    """

    def read(param: Any) -> Piece | None:
        if hasattr(param, "ds_id"):
            return _state(param, key)
        mapping = param._hp_mapping
        if mapping is None:
            return None
        held = mapping.hp_fragment_address
        values = flats[id(param)].narrow(0, held.start, held.numel)
        return Piece(mapping.lp_fragment_address.start, values)

    return whole(params, read)


def gradients(params: Params) -> Tensors:
    """Returns the whole gradients, at the end of a step's last backward pass."""
    return whole(params, _gradient)


def whole(params: Params, read: Read) -> Tensors:
    """Puts the pieces of all ranks together, in float32.

    Args:
      params: by name, the same on every rank; those that ZeRO has not cut are left out.
      read: returns a piece.
    """
    together: dict[int, dict[str, Any]] = {}
    groups: dict[int, Any] = {}
    for name, param in params.items():
        group = _group(param)
        if group is not None:
            groups[id(group)] = group
            together.setdefault(id(group), {})[name] = param
    found: Tensors = {}
    for key, group in groups.items():
        for names in batches.runs({n: _size(p) for n, p in together[key].items()}):
            found |= _joined({n: together[key][n] for n in names}, read, group)
    return {name: found[name] for name in params if name in found}


def _joined(params: Params, read: Read, group: Any) -> Tensors:
    if torch.distributed.get_world_size(group) == 1:
        return _alone(params, read)
    sizes = [_size(param) for param in params.values()]
    device = next(iter(params.values())).device
    flat = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
    parts = flat.split(sizes)
    for param, part in zip(params.values(), parts):
        piece = read(param)
        if piece is not None:
            end = piece.start + piece.values.numel()
            part[piece.start : end].copy_(piece.values.detach())
    torch.distributed.all_reduce(flat, group=group)
    pairs = zip(params.items(), parts)
    return {name: part.view(_shape(param)) for (name, param), part in pairs}


def _alone(params: Params, read: Read) -> Tensors:
    """A single rank has the whole of everything."""
    pieces = {name: read(param) for name, param in params.items()}
    return {
        name: piece.values.detach().float().view(_shape(params[name]))
        for name, piece in pieces.items()
        if piece
    }


def _group(param: Any) -> Any:
    """Returns the ranks among which a parameter is cut; None if it is not."""
    if hasattr(param, "_z3_optimizer"):
        group = param._z3_optimizer._get_param_partition_group(param)
        return group or torch.distributed.group.WORLD
    return param._dp_group if hasattr(param, "_hp_mapping") else None


def _size(param: Any) -> int:
    return param.ds_numel if hasattr(param, "ds_id") else param.numel()


def _shape(param: Any) -> Any:
    return param.ds_shape if hasattr(param, "ds_id") else param.shape


def _state(param: Any, key: str | None = None) -> Piece | None:
    if hasattr(param, "ds_id"):
        return _share(param, param._z3_optimizer.get_local_fp32_param(param, key))
    mapping = param._hp_mapping
    if mapping is None:
        return None
    return Piece(mapping.lp_fragment_address.start, mapping.hp_fragment)


def _gradient(param: Any) -> Piece | None:
    if hasattr(param, "ds_id"):
        return _share(param, param._z3_optimizer.get_local_fp32_grad_for_param(param))
    mapping = param._hp_mapping
    if mapping is None:
        return None
    address = mapping.lp_fragment_address
    values = mapping.get_lp_grad_fragment(param._index_in_param_group).flatten()
    if values.numel() == param.numel():
        # BF16 keeps the whole gradient on every rank.
        values = values.narrow(0, address.start, address.numel)
    return Piece(address.start, values)


def _share(param: Any, values: torch.Tensor) -> Piece | None:
    """Stage 3 cuts a tensor into equal shares; the last ones are padded."""
    start = values.numel() * param._z3_optimizer._get_param_partition_rank(param)
    length = min(values.numel(), param.ds_numel - start)
    return Piece(start, values.flatten()[:length]) if length > 0 else None

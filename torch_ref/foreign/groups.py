"""Which parameters an optimizer's groups are made of.

ZeRO writes their names. Without ZeRO only the order of the optimizer is there: groups
keep the order of the model, so that shapes, and where there are masters their values
rounded to 16 bits, tell which parameter stands where.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from jaxnn.experiment.errors import UserError
from torch_ref.deepspeed_files import Shapes
from torch_ref.foreign.opening import Opened
from torch_ref.foreign.pieces import flats, inner_optimizer

Module = Mapping[str, torch.Tensor]
FUSED = "fp32_groups_flat"
ADVICE = "define `groups` in the port's file, a list of torch's names for each group"


def ties(opened: Opened) -> dict[str, str]:
    """Returns second name of a shared parameter -> its first."""
    written = opened.common.get("shared_params")
    if written:
        return dict(written)
    first: dict[Any, str] = {}
    found = {}
    for name, tensor in opened.common["module"].items():
        if not isinstance(tensor, torch.Tensor) or not tensor.numel():
            continue
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        other = first.setdefault(place, name)
        if other != name:
            found[name] = other
    return found


def parameters(opened: Opened) -> list[str]:
    """Returns the parameters, frozen ones too, in the model's order, each once."""
    buffers, second = set(opened.common["buffer_names"]), ties(opened)
    module = opened.common["module"]
    return [
        name
        for name, tensor in module.items()
        if name not in buffers
        and name not in second
        and isinstance(tensor, torch.Tensor)
    ]


def of(opened: Opened, given: Sequence[Sequence[str]] | None) -> list[Shapes]:
    """Returns {torch name: shape} of each group of the optimizer.

    Args:
      opened: a checkpoint.
      given: names of each group; None: they are found.

    Raises:
      UserError: they cannot be told.
    """
    if opened.is_zero:
        return opened.common["param_shapes"]
    names = parameters(opened)
    sizes = [
        len(g["params"]) for g in inner_optimizer(opened.optimizers[0])["param_groups"]
    ]
    held = flats(opened.optimizers[0])
    module = opened.common["module"]
    found = given or _written(opened, names) or _found(opened, names, sizes, held)
    for name in (name for group in found for name in group):
        if name not in module:
            raise UserError(f"groups: {name} is no parameter of {opened.folder}")
    return [{name: tuple(module[name].shape) for name in group} for group in found]


def _written(opened: Opened, names: Sequence[str]) -> list[list[str]] | None:
    """Names that torch's optimizer was given with the parameters."""
    groups = inner_optimizer(opened.optimizers[0])["param_groups"]
    written: list[list[str]] = [[*(g.get("param_names") or ())] for g in groups]
    known = {name for group in written for name in group} <= set(names)
    return written if all(written) and known else None


def _found(
    opened: Opened,
    names: Sequence[str],
    sizes: Sequence[int],
    held: Sequence[torch.Tensor],
) -> list[list[str]]:
    module = opened.common["module"]
    fused = FUSED in opened.optimizers[0]
    if fused and len(held) == 1 and _total(module, names) == held[0].numel():
        return [list(names)]
    if not fused and len(sizes) == 1 and sizes[0] == len(names):
        return [list(names)]
    ends = [flat.numel() for flat in held] if fused else list(sizes)
    fit = _fits_flat(held) if fused else _fits_tensor(opened, sizes, held)
    lengths = {name: module[name].numel() if fused else 1 for name in names}
    count, found = _assign(names, ends, lengths, lambda *at: fit(module, *at))
    if count != 1:
        what = "several parameters" if count else "no parameters"
        raise UserError(
            f"{opened.folder} does not name the optimizer's parameters, and {what} "
            f"fit its groups; {ADVICE}"
        )
    return found


def _assign(
    names: Sequence[str],
    ends: Sequence[int],
    lengths: Mapping[str, int],
    fits: Callable[[str, int, int], bool],
) -> tuple[int, list[list[str]]]:
    """Deals names out to groups, in order; a name may be left out.

    Args:
      names: parameters in the model's order.
      ends: length of each group.
      lengths: of each name in a group.
      fits: whether a name fits a group at a place in it.

    Returns:
      In how many ways it can be done, 2 for more, and one of them.
    """

    # Places in the groups -> number of ways there, and the choices of one of them.
    reached: dict[tuple[int, ...], tuple[int, Any]] = {(0,) * len(ends): (1, None)}
    remaining = sum(lengths.values())
    for name in names:
        remaining -= lengths[name]
        after: dict[tuple[int, ...], tuple[int, Any]] = {}
        for places, (count, chosen) in reached.items():
            for group in [*range(len(ends)), None]:
                new = _placed(places, group, lengths[name], ends)
                # What can no longer be filled is followed no further.
                if not new or sum(ends) - sum(new) > remaining:
                    continue
                if group is None or fits(name, group, places[group]):
                    before, _ = after.get(new, (0, None))
                    after[new] = (min(before + count, 2), (chosen, group))
        reached = after
    count, chosen = reached.get(tuple(ends), (0, None))
    found: list[list[str]] = [[] for _ in ends]
    for name in reversed(names if count else ()):
        chosen, group = chosen
        if group is not None:
            found[group].insert(0, name)
    return count, found


def _placed(
    places: tuple[int, ...], group: int | None, length: int, ends: Sequence[int]
) -> tuple[int, ...] | None:
    """Returns the places after a name went into a group; None if it is full."""
    if group is None:
        return places
    after = places[group] + length
    if after > ends[group]:
        return None
    return (*places[:group], after, *places[group + 1 :])


def _fits_flat(held: Sequence[torch.Tensor]) -> Callable[..., bool]:
    """A fused group: the values at that place, rounded, are the parameter's."""

    def fits(module: Module, name: str, group: int, place: int) -> bool:
        param = module[name]
        part = held[group][place : place + param.numel()]
        return torch.equal(part.to(param.dtype), param.flatten())

    return fits


def _fits_tensor(
    opened: Opened, sizes: Sequence[int], held: Sequence[torch.Tensor]
) -> Callable[..., bool]:
    """A tensor a parameter: values of a master, else shapes of moments."""
    inner = inner_optimizer(opened.optimizers[0])
    starts = [sum(sizes[:group]) for group in range(len(sizes))]

    def fits(module: Module, name: str, group: int, place: int) -> bool:
        number, param = starts[group] + place, module[name]
        if held:
            master = held[number]
            return master.shape == param.shape and torch.equal(
                master.to(param.dtype), param
            )
        state = inner["state"].get(inner["param_groups"][group]["params"][place], {})
        kept = [v for v in state.values() if isinstance(v, torch.Tensor) and v.ndim]
        return all(value.shape == param.shape for value in kept)

    return fits


def _total(module: Module, names: Sequence[str]) -> int:
    return sum(math.prod(module[name].shape) for name in names)

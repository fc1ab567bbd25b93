"""The training state in anybody's checkpoint, by torch's names, read and put back.

Arrays are flat mappings, kept in a safetensors file:

    params/NAME        float32: masters, and frozen parameters
    buffers/NAME       as they are, 16-bit ones in float32
    moments/KEY/NAME   float32: what the optimizer keeps, by torch's own key

What else there is to know stands in a JSON object beside it; see `describe`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from jaxnn.experiment.errors import UserError
from torch_ref.deepspeed_files import Shapes
from torch_ref.foreign import counters, groups, pieces
from torch_ref.foreign.counters import Counters
from torch_ref.foreign.opening import Opened
from torch_ref.foreign.pieces import Whole

Arrays = Mapping[str, np.ndarray]
BUFFERS = "buffers/"
FACTS = ("lr", "weight_decay", "eps", "betas", "momentum", "alpha")
"""What is told of an optimizer's groups."""


def wholes(opened: Opened, named: Sequence[Shapes]) -> dict[str, Whole]:
    """Returns {name in a file of arrays: where it lies} for masters and moments."""
    found = {f"params/{n}": w for n, w in pieces.masters(opened, named).items()}
    for key in pieces.moment_keys(opened, named)[0]:
        for name, whole in pieces.moments(opened, named, key).items():
            found[f"moments/{key}/{name}"] = whole
    return found | {f"params/{n}": w for n, w in frozen(opened, named).items()}


def frozen(opened: Opened, named: Sequence[Shapes]) -> dict[str, Whole]:
    """Returns {name: parameter} of what no group of the optimizer holds."""
    trained = {name for group in named for name in group}
    module, held = opened.common["module"], {}
    for name in groups.parameters(opened):
        if name not in trained and (opened.stage != 3 or module[name].numel()):
            held[name] = Whole(tuple(module[name].shape), [module[name]])
    if opened.stage == 3:
        shapes = opened.common.get("frozen_param_shapes") or {}
        for name, shape in shapes.items():
            held[name] = Whole(tuple(shape), _shares(opened, name, math.prod(shape)))
    return held


def _shares(opened: Opened, name: str, size: int) -> list[torch.Tensor]:
    flats = [c["frozen_param_fragments"][name].view(-1) for c in opened.commons]
    lengths = [
        min(max(size - f.numel() * n, 0), f.numel()) for n, f in enumerate(flats)
    ]
    return [flat[:length] for flat, length in zip(flats, lengths) if length]


def arrays_of(opened: Opened, named: Sequence[Shapes]) -> dict[str, np.ndarray]:
    """Returns the state as arrays."""
    found = {n: whole.read().numpy() for n, whole in wholes(opened, named).items()}
    module = opened.common["module"]
    for name in opened.common["buffer_names"]:
        found[f"{BUFFERS}{name}"] = _array(module[name])
    return found


def describe(opened: Opened, named: Sequence[Shapes]) -> dict[str, Any]:
    """Returns what the arrays do not say, for JSON.

    Keys: `folder`, `version`, `stage`, `ranks`, `dtype`; `order` and `ties` of the
    state_dict; `frozen`; `keys` of moments and `other_keys` that are none; `counters`;
    `group_steps`; `schedule`, whether there is one; `groups` with rates and betas.
    """
    keys, others = pieces.moment_keys(opened, named)
    inner = pieces.inner_optimizer(opened.optimizers[0])
    module = opened.common["module"]
    return {
        "folder": str(opened.folder),
        "version": str(opened.common.get("ds_version", "unknown")),
        "stage": opened.stage,
        "ranks": int(opened.common["dp_world_size"]),
        "dtype": _dtype(opened),
        "order": [n for n in module if isinstance(module[n], torch.Tensor)],
        "ties": groups.ties(opened),
        "frozen": list(frozen(opened, named)),
        "keys": keys,
        "other_keys": others,
        "counters": counters.read(opened)._asdict(),
        "group_steps": counters.group_steps(opened),
        "schedule": bool(opened.common.get("lr_scheduler")),
        "groups": [_facts(group) for group in inner.get("param_groups", ())],
    }


def put(
    opened: Opened, named: Sequence[Shapes], arrays: Arrays, new: Counters
) -> list[str]:
    """Puts another state into a checkpoint that is in memory.

    Args:
      opened: the checkpoint; its tensors and counters are changed in place.
      named: groups of the optimizer.
      arrays: the state; what is not there stays.
      new: counters.

    Returns:
      What was changed, names of arrays.

    Raises:
      UserError: an array has no place in the checkpoint, or another shape.
    """
    places = wholes(opened, named)
    module = opened.common["module"]
    for name in opened.common["buffer_names"]:
        places[f"{BUFFERS}{name}"] = Whole(tuple(module[name].shape), [module[name]])
    changed = [name for name, array in arrays.items() if _put(places, name, array)]
    trained = {f"params/{name}": name for group in named for name in group}
    for name in set(changed) & trained.keys():
        _refresh(module, trained[name], arrays[name])
    buffers = [n for n in changed if n.startswith(BUFFERS)]
    for name in (n.removeprefix(BUFFERS) for n in buffers):
        for common in opened.commons[1:]:
            common["module"][name].copy_(module[name])
    counters.write(opened, new)
    return changed


def put_rate(opened: Opened, rate: float) -> None:
    """Sets the learning rate of all groups."""
    for optimizer in opened.optimizers:
        for group in pieces.inner_optimizer(optimizer).get("param_groups", ()):
            group["lr"] = rate


def _put(places: Mapping[str, Whole], name: str, array: np.ndarray) -> bool:
    """Writes one array, if it is not there already; returns whether it was not."""
    if name not in places:
        if not array.any():
            return False
        raise UserError(f"--template: has no place for {name}; take another checkpoint")
    whole = places[name]
    if array.shape != whole.shape:
        raise UserError(f"--template: {name} is {whole.shape}, {array.shape} in --from")
    is_buffer = name.startswith(BUFFERS)
    old = _array(whole.pieces[0]) if is_buffer else whole.read().numpy()
    # Not a number is equal to itself here.
    if old.tobytes() == np.asarray(array, old.dtype).tobytes():
        return False
    whole.write(torch.from_numpy(np.ascontiguousarray(array)))
    return True


def _refresh(module: Mapping[str, Any], name: str, array: np.ndarray) -> None:
    """Rounds a master into the weights beside it; at stage 3 there are none."""
    if module[name].numel() == array.size:
        module[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _facts(group: Mapping[str, Any]) -> dict[str, Any]:
    return {k: counters.as_number(group[k]) for k in FACTS if k in group}


def _dtype(opened: Opened) -> str:
    module = opened.common["module"]
    kinds = {str(module[n].dtype) for n in groups.parameters(opened)}
    return "/".join(sorted(kind.removeprefix("torch.") for kind in kinds))


def _array(tensor: torch.Tensor) -> np.ndarray:
    half = tensor.dtype in (torch.bfloat16, torch.float16)
    return (tensor.float() if half else tensor).numpy()

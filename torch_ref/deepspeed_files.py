"""Reads DeepSpeed's checkpoint files, of ZeRO stages 0 to 3 and any number of ranks.

No engine is needed. A file is unpickled with `weights_only`, so it runs no code. Beyond
torch's own classes it may name four of DeepSpeed's, and argparse's Namespace, which
many programs save beside them; they hold nothing but data.
"""

import argparse
import math
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from jaxnn.experiment.errors import UserError

Shapes = Mapping[str, Sequence[int]]
"""{torch name: shape} of the parameters of one group."""

# Keys of a rank's optimizer under which a group's masters lie, concatenated: at stages
# 1 and 2, at stage 3, and at stage 0.
FLAT = ("single_partition_of_fp32_groups", "fp32_flat_groups", "fp32_groups_flat")
# The same where each parameter has a master of its own: stage 0, not fused.
UNFUSED = "fp32_groups"
# What every checkpoint of an engine holds.
COMMON = {
    "module",
    "buffer_names",
    "param_shapes",
    "optimizer",
    "global_steps",
    "skipped_steps",
    "dp_world_size",
}
# Stages 0 to 2, and stage 3.
MODEL_FILES = (
    "mp_rank_00_model_states.pt",
    "zero_pp_rank_0_mp_rank_00_model_states.pt",
)


class Checkpoint(NamedTuple):
    """Contents of the files of one checkpoint.

    Attributes:
      folder: where they are.
      common: what DeepSpeed writes once: module, param_shapes, global_steps,
        skipped_steps, ...
      optimizers: each rank's optimizer; only one at ZeRO stage 0.
    """

    folder: pathlib.Path
    common: Mapping[str, Any]
    optimizers: list[Mapping[str, Any]]

    @property
    def zero_stage(self) -> int:
        """0 to 3."""
        return int(self.optimizers[0].get("zero_stage", 0))

    @property
    def scaler(self) -> Mapping[str, Any]:
        """FP16's cur_scale; cur_iter, last_overflow_iter, cur_hysteresis if saved."""
        optimizer = self.optimizers[0]
        # Stage 0 has no scaler object; its fields lie among the optimizer's own.
        if "loss_scaler" in optimizer:
            return vars(optimizer["loss_scaler"])
        return optimizer


def read(path: str | pathlib.Path) -> Any:
    """Returns the content of a .pt file, on the CPU.

    Raises:
      UserError: missing, damaged, or it names a class beyond those that hold nothing
        but data.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    harmless = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    harmless.append(argparse.Namespace)
    _require_whole(path)
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes torch raise anything.
    except Exception as error:
        raise UserError(
            f"cannot read {path}: {_reason(error)}; take another checkpoint"
        ) from None


def _require_whole(path: str | pathlib.Path) -> None:
    """Raises UserError on a member of the archive that is not what was written.

    torch loads it all the same: it does not look at the checksums of a zip archive.
    """
    # What is no archive, torch has a word about; older versions wrote none.
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # Where a flipped bit lies in the directory, zipfile raises anything.
    except Exception as error:
        damaged = _reason(error)
    if damaged:
        raise UserError(
            f"cannot read {path}: {damaged} in it is damaged; take another checkpoint, "
            "or copy this one again"
        )


def open_checkpoint(folder: pathlib.Path) -> Checkpoint:
    """Reads every file of a checkpoint.

    Raises:
      UserError: a file is missing, damaged or of another layout.
    """
    common = read(_model_file(folder))
    _require(
        isinstance(common, dict) and common.keys() >= COMMON,
        f"{folder} is no checkpoint of a DeepSpeed engine",
    )
    _require(
        common.get("mp_world_size", 1) == 1,
        f"{folder} splits its layers over several ranks, which is not read",
    )
    # Without ZeRO the optimizer is in the model's file.
    if common["optimizer"] is not None:
        return Checkpoint(folder, common, [common["optimizer"]])

    files = [
        read(_optimizer_file(folder, rank)) for rank in range(common["dp_world_size"])
    ]
    _require(
        all(
            isinstance(file, dict) and "optimizer_state_dict" in file for file in files
        ),
        f"{folder} is no checkpoint of a DeepSpeed engine",
    )
    optimizers = [file["optimizer_state_dict"] for file in files]
    paddings = optimizers[0].get("param_alignment_paddings", ())
    _require(
        not any(any(group) for group in paddings),
        f"{folder} was written under zero_optimization.parameter_alignment, which is "
        "not read",
    )
    return Checkpoint(folder, common, optimizers)


def check(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises UserError on the first tensor whose name or shape is not the model's."""
    found = _shapes(checkpoint)
    # At stage 3 an engine's parameters are empty and keep their shape in `ds_shape`.
    wanted = {
        name: tuple(getattr(tensor, "ds_shape", tensor.shape))
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    for name in [*wanted, *found]:
        here = tuple(found[name]) if name in found else None
        there = wanted.get(name)
        _require(
            here == there,
            f"{name} is {here or 'missing'} in {checkpoint.folder}, "
            f"{there or 'unknown'} in the experiment's model",
        )


def masters(
    checkpoint: Checkpoint, groups: Sequence[Shapes]
) -> dict[str, torch.Tensor]:
    """Returns {torch name: whole master parameter}, float32.

    Args:
      checkpoint: of any stage.
      groups: parameter groups of the optimizer, which stage 0 does not write.
    """
    optimizer = checkpoint.optimizers[0]
    # FP32 at stage 0 has no masters beside the parameters.
    if not any(key in optimizer for key in (*FLAT, UNFUSED)):
        return {
            name: checkpoint.common["module"][name]
            for group in groups
            for name in group
        }
    held = [_masters(optimizer) for optimizer in checkpoint.optimizers]
    return _joined(checkpoint, groups, held)


def moments(
    checkpoint: Checkpoint, groups: Sequence[Shapes], key: str
) -> dict[str, torch.Tensor]:
    """Returns {torch name: whole moment}, float32; {} before the first update.

    Args:
      checkpoint: of any stage.
      groups: parameter groups of the optimizer, which stage 0 does not write.
      key: name of the moment in the torch optimizer's state.
    """
    states = [_states(optimizer) for optimizer in checkpoint.optimizers]
    if not all(key in state for state in states[0]):
        return {}
    held = [[state[key] for state in rank] for rank in states]
    return _joined(checkpoint, groups, held)


def counter(checkpoint: Checkpoint) -> int | None:
    """Returns the updates that the optimizer has counted; None if it does not count."""
    # FusedAdam counts at one parameter of a group only.
    counts = [
        int(state["step"])
        for state in _states(checkpoint.optimizers[0])
        if "step" in state
    ]
    return max(counts, default=None)


def _shapes(checkpoint: Checkpoint) -> dict[str, Sequence[int]]:
    """Returns {torch name: shape} of all parameters and buffers."""
    module = checkpoint.common["module"]
    buffers = checkpoint.common["buffer_names"]
    shapes = {}
    # Only stage 0 writes no shapes; its `module` holds whole parameters.
    if checkpoint.common["param_shapes"]:
        for group in checkpoint.common["param_shapes"]:
            shapes |= group
    else:
        shapes |= {name: module[name].shape for name in module if name not in buffers}
    return shapes | {name: module[name].shape for name in buffers}


def _masters(optimizer: Mapping[str, Any]) -> list[torch.Tensor]:
    flat = next((optimizer[key] for key in FLAT if key in optimizer), None)
    if flat is not None:
        return list(flat)
    return [master for group in optimizer[UNFUSED] for master in group]


def _states(optimizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns one rank's state of each tensor that is updated; {} before an update."""
    inner = (
        optimizer.get("base_optimizer_state")
        or optimizer.get("optimizer_state_dict")
        or optimizer
    )
    return [
        inner["state"].get(number, {})
        for group in inner["param_groups"]
        for number in group["params"]
    ]


def _joined(
    checkpoint: Checkpoint,
    groups: Sequence[Shapes],
    ranks: Sequence[Sequence[torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """Joins what the ranks hold into whole tensors by name.

    Args:
      checkpoint: of any stage.
      groups: parameter groups of the optimizer, which stage 0 does not write.
      ranks: tensors of each rank, in the optimizer's order.
    """
    groups = checkpoint.common["param_shapes"] or groups
    # Stage 0 in FP32, or with an optimizer that is not fused: a tensor a parameter.
    if len(ranks[0]) != len(groups):
        groups = [{name: shape} for group in groups for name, shape in group.items()]
    split = _by_parameter if checkpoint.zero_stage == 3 else _one_after_the_other
    joined = {
        name: tensor
        for group, *pieces in zip(groups, *ranks)
        for name, tensor in split(group, [piece.flatten() for piece in pieces])
    }
    _require(
        len(joined) == sum(map(len, groups)),
        f"{checkpoint.folder} lacks parameters that it lists",
    )
    return {name: tensor.float().clone() for name, tensor in joined.items()}


def _one_after_the_other(
    group: Shapes, pieces: Sequence[torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Stages 0 to 2: pieces of all parameters, concatenated and padded at the end."""
    flat = torch.cat(list(pieces))
    offset = 0
    for name, shape in group.items():
        size = math.prod(shape)
        yield name, flat[offset : offset + size].view(tuple(shape))
        offset += size


def _by_parameter(
    group: Shapes, pieces: Sequence[torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Stage 3: each parameter is cut into one piece per rank, the last ones padded."""
    offset = 0
    for name, shape in group.items():
        size = math.prod(shape)
        length = -(-size // len(pieces))
        whole = torch.cat([piece[offset : offset + length] for piece in pieces])
        yield name, whole[:size].view(tuple(shape))
        offset += length


def _model_file(folder: pathlib.Path) -> pathlib.Path:
    for name in MODEL_FILES:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder / MODEL_FILES[0]} is missing; take another checkpoint")


def _optimizer_file(folder: pathlib.Path, rank: int) -> pathlib.Path:
    name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    # DeepSpeed prefixes the name under BF16.
    for path in (folder / name, folder / f"bf16_{name}"):
        if path.exists():
            return path
    raise UserError(
        f"{folder / name} of rank {rank} is missing; take another checkpoint"
    )


def _reason(error: Exception) -> str:
    """Returns why torch did not read a file, in one line."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return f"it names {refused[1]}, and a checkpoint may run no code"
    # torch's own text advises `weights_only=False`, which lets a file run anything.
    if "weights_only" in str(error):
        return "it is damaged"
    if "central directory" in str(error):
        return "it is cut off or damaged"
    return (str(error) or type(error).__name__).splitlines()[0]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UserError(otherwise)

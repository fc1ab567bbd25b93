"""DeepSpeed's checkpoint files of ZeRO stages 0 to 3 and any number of ranks, read
without DeepSpeed's engine.

A file is unpickled with `weights_only`: it runs no code. Beyond torch's own classes
it may name four of DeepSpeed's, which hold nothing but data.
"""

import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from jaxnn.experiment.errors import UserError

Shapes = Mapping[str, Sequence[int]]


class Checkpoint(NamedTuple):
    """What the files of one checkpoint hold.

    Attributes:
      folder: of the files.
      common: what DeepSpeed writes once: module, param_shapes, global_steps,
        skipped_steps, ...
      optimizers: each rank's optimizer; one alone at ZeRO stage 0.
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
        """Of FP16: cur_scale, and cur_iter, last_overflow_iter, cur_hysteresis as far
        as DeepSpeed saves them."""
        optimizer = self.optimizers[0]
        return (
            vars(optimizer["loss_scaler"]) if "loss_scaler" in optimizer else optimizer
        )


def read(path: str | pathlib.Path) -> Any:
    """A .pt file's content, on the CPU.

    Raises:
      UserError: missing, damaged, or it names a class beyond the four that hold nothing
        but data.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    harmless = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise UserError(
            f"cannot read {path}: {_reason(error)}; take another checkpoint"
        ) from None


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
    padded = any(
        any(group) for group in optimizers[0].get("param_alignment_paddings", ())
    )
    _require(
        not padded,
        f"{folder} was written under zero_optimization.parameter_alignment, which is "
        "not read",
    )
    return Checkpoint(folder, common, optimizers)


def check(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises UserError on the first tensor that differs in name or shape from the
    model's."""
    groups = checkpoint.common["param_shapes"]
    found = (
        dict(pair for group in groups for pair in group.items())
        if groups
        else {
            name: tensor.shape
            for name, tensor in checkpoint.common["module"].items()
            if name not in checkpoint.common["buffer_names"]
        }
    )
    found |= {
        name: checkpoint.common["module"][name].shape
        for name in checkpoint.common["buffer_names"]
    }
    wanted = {
        name: tuple(getattr(tensor, "ds_shape", tensor.shape))
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    for name in [*wanted, *found]:
        shapes = [
            tuple(side[name]) if name in side else None for side in (found, wanted)
        ]
        _require(
            shapes[0] == shapes[1],
            f"{name} is {shapes[0] or 'missing'} in {checkpoint.folder}, "
            f"{shapes[1] or 'unknown'} in the experiment's model",
        )


def masters(
    checkpoint: Checkpoint, groups: Sequence[Shapes]
) -> dict[str, torch.Tensor]:
    """torch name -> whole master parameter, float32.

    Args:
      checkpoint: of any stage.
      groups: {name: shape} of each parameter group; stage 0 does not write them down.
    """
    optimizer = checkpoint.optimizers[0]
    if not any(
        key in optimizer for key in (*FLAT, UNFUSED)
    ):  # FP32 at stage 0: the parameters themselves
        return {
            name: checkpoint.common["module"][name]
            for group in groups
            for name in group
        }
    return _joined(
        checkpoint, groups, [_masters(optimizer) for optimizer in checkpoint.optimizers]
    )


def moments(
    checkpoint: Checkpoint, groups: Sequence[Shapes], key: str
) -> dict[str, torch.Tensor]:
    """torch name -> whole moment of the optimizer; {} before the first update.
    Arguments as of `masters`."""
    states = [_states(optimizer) for optimizer in checkpoint.optimizers]
    if not all(key in state for state in states[0]):
        return {}
    return _joined(
        checkpoint, groups, [[state[key] for state in rank] for rank in states]
    )


def counter(checkpoint: Checkpoint) -> int | None:
    """Updates as the optimizer counts them, or None if it does not; FusedAdam counts at
    one parameter of a group."""
    return max(
        (
            int(state["step"])
            for state in _states(checkpoint.optimizers[0])
            if "step" in state
        ),
        default=None,
    )


def _masters(optimizer: Mapping[str, Any]) -> list[torch.Tensor]:
    flat = next((optimizer[key] for key in FLAT if key in optimizer), None)
    return (
        list(flat)
        if flat is not None
        else [master for group in optimizer[UNFUSED] for master in group]
    )


def _states(optimizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One rank's state of each tensor that the torch optimizer updates, in its order;
    {} before the first update."""
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
    """Whole tensors by name from what each rank holds, a list of tensors in the
    optimizer's order."""
    groups = checkpoint.common["param_shapes"] or groups
    if len(ranks[0]) != len(
        groups
    ):  # a tensor a parameter: at stage 0, FP32 and optimizers that are not fused
        groups = [{name: shape} for group in groups for name, shape in group.items()]
    split = _by_parameter if checkpoint.zero_stage == 3 else _one_after_the_other
    joined = {
        name: tensor
        for group, *parts in zip(groups, *ranks)
        for name, tensor in split(group, [part.flatten() for part in parts])
    }
    _require(
        len(joined) == sum(map(len, groups)),
        f"{checkpoint.folder} lacks parameters that it lists",
    )
    return {name: tensor.float().clone() for name, tensor in joined.items()}


def _one_after_the_other(
    group: Shapes, parts: Sequence[torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Stages 0 to 2: the ranks' parts in a row are the parameters in a row, then
    padding."""
    flat, offset = torch.cat(list(parts)), 0
    for name, shape in group.items():
        size = math.prod(shape)
        yield name, flat[offset : offset + size].view(tuple(shape))
        offset += size


def _by_parameter(
    group: Shapes, parts: Sequence[torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Stage 3: each parameter is cut into one piece a rank, the last ones padded."""
    offset = 0
    for name, shape in group.items():
        size = math.prod(shape)
        piece = -(-size // len(parts))
        yield (
            name,
            torch.cat([part[offset : offset + piece] for part in parts])[:size].view(
                tuple(shape)
            ),
        )
        offset += piece


def _model_file(folder: pathlib.Path) -> pathlib.Path:
    for name in MODEL_FILES:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder / MODEL_FILES[0]} is missing; take another checkpoint")


def _optimizer_file(folder: pathlib.Path, rank: int) -> pathlib.Path:
    """DeepSpeed puts "bf16_" before the name under BF16."""
    name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    path = next(
        (
            folder / (prefix + name)
            for prefix in ("", "bf16_")
            if (folder / (prefix + name)).exists()
        ),
        None,
    )
    if path is None:
        raise UserError(
            f"{folder / name} of rank {rank} is missing; take another checkpoint"
        )
    return path


def _reason(error: Exception) -> str:
    """In one line; torch's own text advises `weights_only=False`, after which a file
    may run anything."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return f"it names {refused[1]}, and a checkpoint may run no code"
    return (
        "it is damaged"
        if "weights_only" in str(error)
        else (str(error) or type(error).__name__).splitlines()[0]
    )


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UserError(f"{otherwise}")


FLAT = ("single_partition_of_fp32_groups", "fp32_flat_groups", "fp32_groups_flat")
"""Where stages 1 and 2, 3, and 0 keep the masters of a group, one after the other."""
UNFUSED = "fp32_groups"
COMMON = {
    "module",
    "buffer_names",
    "param_shapes",
    "optimizer",
    "global_steps",
    "skipped_steps",
    "dp_world_size",
}
MODEL_FILES = (
    "mp_rank_00_model_states.pt",
    "zero_pp_rank_0_mp_rank_00_model_states.pt",
)

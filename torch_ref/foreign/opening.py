"""Finds the files of anybody's DeepSpeed checkpoint, and refuses what is not read."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxnn.experiment.errors import UserError
from torch_ref import deepspeed_files
from torch_ref.deepspeed_files import COMMON, MODEL_FILES

LATEST = "latest"
RANK_0 = "mp_rank_00"
EXPERTS = ("num_experts", "ds_autoep_layers", "autoep_layers")
"""Keys of a model's file that hold something if it has experts."""
WITHOUT = COMMON - {"param_shapes", "optimizer"}
"""What the file of a model holds whatever its version."""


class Opened(NamedTuple):
    """A checkpoint in memory.

    Attributes:
      folder: the folder of the tag.
      files: path -> content, all that was read.
      commons: contents of the models' files; one, or one of each rank at stage 3.
      optimizers: optimizer of each rank; only one at ZeRO stage 0.
    """

    folder: pathlib.Path
    files: Mapping[pathlib.Path, Any]
    commons: list[dict[str, Any]]
    optimizers: list[dict[str, Any]]

    @property
    def common(self) -> dict[str, Any]:
        """The first model's file."""
        return self.commons[0]

    @property
    def is_zero(self) -> bool:
        """False at stage 0."""
        return self.common["optimizer"] is None

    @property
    def stage(self) -> int:
        """0 to 3; BF16 beside ZeRO writes none and is cut as stage 1 is."""
        return int(self.optimizers[0].get("zero_stage", 1)) if self.is_zero else 0


def find(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the tag that `latest` names, or the folder itself.

    Raises:
      UserError: there is no checkpoint.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; give what engine.save_checkpoint wrote"
        )
    if any(folder.glob("*model_states.pt")):
        return folder
    if (folder / LATEST).is_file():
        tag = (folder / LATEST).read_text().strip()
        if not (folder / tag).is_dir():
            raise UserError(f"{folder / LATEST} names {tag}, which is not there")
        return folder / tag
    if (folder / "latest_universal").exists() or _is_universal(folder):
        raise UserError(_universal(folder))
    tags = sorted({path.parent.name for path in folder.glob("*/*model_states.pt")})
    hint = f"give one of its folders, {', '.join(tags)}" if tags else "give another"
    raise UserError(f"{folder} has no file {LATEST}; {hint}")


def open_anyones(folder: pathlib.Path) -> Opened:
    """Reads all files of a checkpoint.

    Args:
      folder: folder of the checkpoints, or of one of them.

    Raises:
      UserError: something is missing, damaged or of a layout that is not read.
    """
    folder = find(folder)
    if _is_universal(folder):
        raise UserError(_universal(folder))
    _refuse_parallel(folder)
    files: dict[pathlib.Path, Any] = {}
    first = _read_model(_first_model(folder), files)
    _refuse_contents(folder, first)
    if first["optimizer"] is not None:
        return Opened(folder, files, [first], [first["optimizer"]])
    optimizers = _read_optimizers(folder, first["dp_world_size"], files)
    stage = int(optimizers[0].get("zero_stage", 1))
    others = range(1, first["dp_world_size"]) if stage == 3 else ()
    commons = [first, *(_read_model(_model_of(folder, rank), files) for rank in others)]
    opened = Opened(folder, files, commons, optimizers)
    _refuse_layout(opened)
    return opened


def _read_model(path: pathlib.Path, files: dict[pathlib.Path, Any]) -> dict[str, Any]:
    content = files[path] = deepspeed_files.read(path)
    lacking = WITHOUT - content.keys() if isinstance(content, dict) else WITHOUT
    if lacking:
        raise UserError(
            f"{path} lacks {min(lacking)}: no file that engine.save_checkpoint wrote, "
            "or of DeepSpeed before 0.4"
        )
    # Version 0.3 wrote neither; without ZeRO there is no list of shapes to miss.
    content.setdefault("optimizer", None)
    shapes = content.setdefault("param_shapes", None)
    if shapes and not isinstance(shapes, list):
        content["param_shapes"] = [shapes]
    return content


def _read_optimizers(
    folder: pathlib.Path, ranks: int, files: dict[pathlib.Path, Any]
) -> list[dict[str, Any]]:
    found = []
    for rank in range(ranks):
        path = _optimizer_file(folder, rank, ranks)
        content = files[path] = deepspeed_files.read(path)
        is_dict = isinstance(content, dict)
        inner = content.get("optimizer_state_dict") if is_dict else None
        if not isinstance(inner, dict):
            raise UserError(f"{path} holds no optimizer of a DeepSpeed engine")
        found.append(inner)
    extra = _named(folder, ranks)
    if extra:
        raise UserError(
            f"{folder} was written by {ranks} ranks and holds {extra[0].name} of one "
            "more; two checkpoints are mixed, take another"
        )
    return found


def _optimizer_file(folder: pathlib.Path, rank: int, ranks: int) -> pathlib.Path:
    found = _named(folder, rank)
    if found:
        return found[0]
    raise UserError(
        f"{folder}/zero_pp_rank_{rank}_{RANK_0}_optim_states.pt of rank {rank} of "
        f"{ranks} is missing; copy the files of all ranks into one folder"
    )


def _named(folder: pathlib.Path, rank: int) -> list[pathlib.Path]:
    """Returns the files of a rank's optimizer, under any of DeepSpeed's names."""
    # An underscore was missing before version 0.4; BF16 and FP16 have prefixes.
    name = f"zero_pp_rank_{rank}_{RANK_0}"
    names = [f"{name}_optim_states.pt", f"{name}optim_states.pt"]
    prefixed = [
        f"{prefix}{name}" for name in names for prefix in ("", "bf16_", "fp16_")
    ]
    return [folder / name for name in prefixed if (folder / name).exists()]


def _first_model(folder: pathlib.Path) -> pathlib.Path:
    for name in MODEL_FILES:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder / MODEL_FILES[0]} is missing; take another checkpoint")


def _model_of(folder: pathlib.Path, rank: int) -> pathlib.Path:
    path = folder / f"zero_pp_rank_{rank}_{RANK_0}_model_states.pt"
    if not path.exists():
        raise UserError(f"{path} of rank {rank} is missing; copy it there")
    return path


def _refuse_parallel(folder: pathlib.Path) -> None:
    """Raises UserError if file names show another way of cutting a model."""
    kinds = {
        "layer_*model_states.pt": "was written by a pipeline",
        "*mp_rank_01*": "splits its layers over several ranks (tensor parallelism)",
        "*expert_*": "has experts (MoE)",
    }
    for pattern, what in kinds.items():
        for path in folder.glob(pattern):
            raise UserError(f"{folder} {what}, which is not read: {path.name}")


def _refuse_contents(folder: pathlib.Path, common: Mapping[str, Any]) -> None:
    if common.get("mp_world_size") not in (None, 1):
        raise UserError(
            f"{folder} splits its layers over {common['mp_world_size']} ranks (tensor "
            "parallelism), which is not read"
        )
    for key in EXPERTS:
        if any(common.get(key) or ()):
            raise UserError(f"{folder} has experts (MoE: {key}), which is not read")
    if common["module"] is None:
        raise UserError(f"{folder} was written by a pipeline, which is not read")


def _refuse_layout(opened: Opened) -> None:
    ranks = len(opened.optimizers)
    for number, optimizer in enumerate(opened.optimizers):
        stage = int(optimizer.get("zero_stage", 1))
        if stage != opened.stage:
            raise UserError(
                f"{opened.folder}: rank 0 is of ZeRO stage {opened.stage}, rank "
                f"{number} of {stage}; two checkpoints are mixed, take another"
            )
        counts = optimizer.get("partition_count", ranks)
        for count in counts if isinstance(counts, list) else [counts]:
            if count != ranks:
                raise UserError(
                    f"{opened.folder} cuts its state among {count} of {ranks} ranks "
                    "(MiCS, or experts), which is not read"
                )
    if not opened.common["param_shapes"]:
        raise UserError(
            f"{opened.folder} lists no param_shapes; DeepSpeed 0.4 or later"
        )


def _is_universal(folder: pathlib.Path) -> bool:
    return any(folder.glob("zero/*/fp32.pt")) or any(folder.glob("*/zero/*/fp32.pt"))


def _universal(folder: pathlib.Path) -> str:
    return (
        f"{folder} is a universal checkpoint, which is not read; give the checkpoint "
        "that it was made of"
    )

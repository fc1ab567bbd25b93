"""Checkpoint files as DeepSpeed of several versions lays them out, without DeepSpeed.

The network has a matrix [3, 2], a vector [3] and a buffer; values are whole numbers,
so that every entry is known.
"""

import pathlib

import torch

SHAPES = {"a.weight": (3, 2), "b.bias": (3,)}
LENGTH = 9
TAG = "global_step7"


def params(dtype=torch.float32) -> dict[str, torch.Tensor]:
    weight = torch.arange(6, dtype=torch.float32).view(3, 2) + 1
    return {"a.weight": weight.to(dtype), "b.bias": torch.ones(3).to(dtype) * 9}


def flat(start: int = 0) -> torch.Tensor:
    values = [tensor.flatten() for tensor in params().values()]
    return torch.cat(values) + start


def common(**more) -> dict:
    """What all versions write; without ZeRO, FP32."""
    return {
        "module": params() | {"mean": torch.zeros(2)},
        "buffer_names": ["mean"],
        "optimizer": None,
        "param_shapes": [{n: torch.Size(s) for n, s in SHAPES.items()}],
        "global_steps": 7,
        "skipped_steps": 2,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_version": "0.12.6",
        **more,
    }


def adam(length: int = LENGTH, step: int | None = 5, **group) -> dict:
    """state_dict of Adam over one flat tensor."""
    state = {"exp_avg": flat(10)[:length], "exp_avg_sq": flat(20)[:length]}
    if step is not None:
        state["step"] = step
    return {
        "state": {0: state},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0], **group}],
    }


def zero(optimizer=None, **more) -> dict:
    """One rank's file of ZeRO stage 1."""
    return {
        "optimizer_state_dict": {
            "base_optimizer_state": optimizer or adam(),
            "single_partition_of_fp32_groups": [flat()],
            "zero_stage": 1,
            "partition_count": [1],
            **more,
        }
    }


def save(
    folder: pathlib.Path,
    model: dict,
    ranks: list[dict] | None = None,
    name: str = "zero_pp_rank_{}_mp_rank_00_optim_states.pt",
) -> pathlib.Path:
    """Writes the files of a checkpoint, and `latest`."""
    tag = folder / TAG
    tag.mkdir(parents=True)
    stage3 = bool(ranks) and "fp32_flat_groups" in ranks[0]["optimizer_state_dict"]
    first = "zero_pp_rank_{}_mp_rank_00_model_states.pt" if stage3 else (
        "mp_rank_{:02d}_model_states.pt"
    )  # fmt: skip
    for rank in range(len(ranks or ()) if stage3 else 1):
        torch.save(model, tag / first.format(rank))
    for rank, content in enumerate(ranks or ()):
        torch.save(content, tag / name.format(rank))
    (folder / "latest").write_text(TAG)
    return folder

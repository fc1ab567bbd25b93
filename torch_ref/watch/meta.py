"""What meta.json says of a recorded training."""

import contextlib
import importlib.metadata
from typing import Any

import torch
from torch import nn

from jaxnn.experiment.results import run_log
from torch_ref.precision import DTYPES
from torch_ref.watch.optimizer_state import group_names
from torch_ref.watch.subject import Subject

NAMES = {dtype: name for name, dtype in DTYPES.items()} | {torch.float64: "fp64"}


def describe(watcher: Any, passes: int, per_rank: int) -> dict[str, Any]:
    """Returns meta.json without what later steps may change.

    Args:
      watcher: as the first step ends.
      passes: forward passes of that step.
      per_rank: those of this rank.
    """
    subject: Subject = watcher.subject
    return {
        "stack": subject.stack,
        "names": "torch",
        "precision": precision_of(subject.model),
        "autocast": watcher.forwards.autocast,
        "world_size": subject.world_size,
        "steps": watcher.steps,
        "first_step": watcher.first_step,
        "flags": [],
        "versions": run_log.versions(_installed(("torch", "deepspeed"))),
        "accumulation_steps": per_rank,
        "passes": passes,
        "optimizer": type(subject.optimizer).__name__,
        **_of_parameters(subject),
        **subject.meta(),
    }


def _of_parameters(subject: Subject) -> dict[str, Any]:
    params = subject.structure.params()
    return {
        "groups": group_names(subject),
        "trained": [name for name, param in params.items() if param.requires_grad],
        "frozen": [name for name, param in params.items() if not param.requires_grad],
        "ties": ties(subject.model),
        "modules": {
            name: type(layer).__name__
            for name, layer in subject.model.named_modules()
            if any(True for _ in layer.parameters(recurse=False))
        },
    }


def precision_of(model: nn.Module) -> str:
    """Returns the format of the weights that a forward pass reads."""
    kinds = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return NAMES.get(kinds[0], str(kinds[0])) if kinds else "fp32"


def autocast_of(device: str) -> str | None:
    """Returns the format that torch.autocast computes in here; None if it does not."""
    if not torch.is_autocast_enabled(device):
        return None
    return NAMES.get(torch.get_autocast_dtype(device))


def ties(model: nn.Module) -> dict[str, str]:
    """Returns {name: first name of the same parameter}."""
    first: dict[int, str] = {}
    found = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(param), name) != name:
            found[name] = first[id(param)]
    return found


def _installed(packages: tuple[str, ...]) -> list[str]:
    found = []
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            found.append(name)
    return found

"""What the optimizer of a subject holds, by the names of the parameters."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torch_ref.watch import moments
from torch_ref.watch.subject import Subject, Tensors


def moments_of(subject: Subject) -> dict[str, Tensors]:
    """Returns {"first" or "second": {name: moment}}."""
    held = moments.keys(subject.optimizer)
    found = {kind: subject.moment(key) for kind, key in held.items()}
    for kind, key in held.items():
        if key == "momentum_buffer":
            found[kind] = _with_momentum(subject, found[kind])
    return {kind: values for kind, values in found.items() if values}


def groups(subject: Subject) -> list[dict[str, np.ndarray]]:
    """Returns the hyper-parameters of each group: numbers and pairs, float64."""
    # DeepSpeed's Adam holds its kind of decay outside the groups.
    mode = getattr(subject.optimizer, "adam_w_mode", None)
    common = {} if mode is None else {"adam_w_mode": np.asarray(mode, np.float64)}
    return [_numbers(group) | common for group in subject.optimizer.param_groups]


def group_names(subject: Subject) -> list[list[str]]:
    """Returns the names of the parameters of each group."""
    names = {id(param): name for name, param in subject.structure.params().items()}
    return [
        [names[id(param)] for param in group if id(param) in names]
        for group in subject.group_params()
    ]


def _with_momentum(subject: Subject, found: Tensors) -> Tensors:
    """Drops what a group without momentum would only seem to have."""
    pairs = zip(group_names(subject), subject.optimizer.param_groups)
    without = {n for names, g in pairs if not g.get("momentum") for n in names}
    return {name: value for name, value in found.items() if name not in without}


def _numbers(group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the entries of a group that are numbers, or sequences of them."""
    found = {}
    for key, value in group.items():
        if isinstance(value, torch.Tensor):
            value = value.tolist()
        values = value if isinstance(value, tuple | list) else [value]
        real = [isinstance(v, numbers.Real) and math.isfinite(v) for v in values]
        if key != "params" and all(real):
            found[key] = np.asarray(value, np.float64)
    return found

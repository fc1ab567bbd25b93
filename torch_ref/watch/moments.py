"""Which moments torch's and DeepSpeed's optimizers hold, and what they start from."""

import torch

KINDS = {
    "first": ("exp_avg", "momentum_buffer"),
    "second": ("exp_avg_sq", "square_avg", "sum", "exp_inf"),
}
"""Moment by the trace's name -> keys of it in the state of a parameter."""

ADAM = ("exp_avg", "exp_avg_sq")
MADE: dict[str, tuple[str, ...]] = {
    "Adam": ADAM,
    "AdamW": ADAM,
    "NAdam": ADAM,
    "RAdam": ADAM,
    "FusedAdam": ADAM,
    "DeepSpeedCPUAdam": ADAM,
    "Adamax": ("exp_avg", "exp_inf"),
    "Adagrad": ("sum",),
    "RMSprop": ("square_avg", "momentum_buffer"),
    "SGD": ("momentum_buffer",),
}
"""Class of an optimizer -> keys that its first update makes."""


def keys(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Returns {"first" or "second": key}, of what is held or the first update makes."""
    made = set(MADE.get(type(optimizer).__name__, ()))
    if not any(group.get("momentum") for group in optimizer.param_groups):
        made.discard("momentum_buffer")
    made |= _held(optimizer)
    return {kind: key for kind, names in KINDS.items() for key in names if key in made}


def start(optimizer: torch.optim.Optimizer, key: str) -> float:
    """Returns what every number of a moment is before the first update."""
    defaults = optimizer.defaults
    return float(defaults.get("initial_accumulator_value", 0)) if key == "sum" else 0.0


def unknown(optimizer: torch.optim.Optimizer) -> set[str]:
    """Returns the keys of state that the trace has no place for."""
    known = {key for names in KINDS.values() for key in names}
    return _held(optimizer) - known


def _held(optimizer: torch.optim.Optimizer) -> set[str]:
    """Returns the keys of state that hold tensors."""
    # Parameters are many, kinds of their states few.
    kinds = {tuple(state): state for state in optimizer.state.values()}
    # Counters are tensors of one number.
    return {
        key
        for state in kinds.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step"
    }

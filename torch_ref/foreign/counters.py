"""Counters and the loss scaler of anybody's checkpoint, read and moved on."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from torch_ref.foreign.opening import Opened
from torch_ref.foreign.pieces import COUNTER, inner_optimizer, states

SCHEDULES = ("last_batch_iteration", "last_epoch", "_step_count")
"""Counters of schedules, DeepSpeed's and torch's."""
NO_HYSTERESIS = 1
"""Without ZeRO the loss scale halves at the first overflow (MISMATCHES D4)."""


class Counters(NamedTuple):
    """Where a training stands.

    Attributes:
      step: batches, skipped ones included.
      updates: updates applied.
      optimizer_step: updates as the optimizer counts them; None if it does not.
      loss_scale: 1 without FP16.
      clean_steps: steps since the last overflow; 0 without a dynamic scale.
      hysteresis: overflows left before the scale halves.
    """

    step: int
    updates: int
    optimizer_step: int | None
    loss_scale: float
    clean_steps: int
    hysteresis: int


def read(opened: Opened) -> Counters:
    """Returns the counters of a checkpoint."""
    common, scaler = opened.common, scaler_of(opened.optimizers[0])
    clean = 0
    if "last_overflow_iter" in scaler:
        clean = scaler["cur_iter"] - scaler["last_overflow_iter"] - 1
    return Counters(
        step=int(common["global_steps"]),
        updates=int(common["global_steps"] - common["skipped_steps"]),
        optimizer_step=max(group_steps(opened), default=None),
        loss_scale=float(scaler.get("cur_scale", 1)),
        clean_steps=int(clean),
        hysteresis=int(scaler.get("cur_hysteresis", NO_HYSTERESIS)),
    )


def group_steps(opened: Opened) -> list[int]:
    """Returns the updates that each group of the optimizer has counted, if any has."""
    optimizer = opened.optimizers[0]
    kept = [int(state[COUNTER]) for state in states(optimizer) if COUNTER in state]
    if any(kept):
        return kept if opened.is_zero else _largest(optimizer)
    # FusedAdam before version 0.12 counted in its groups, elastic checkpoints beside.
    groups = (
        [] if _is_elastic(optimizer) else inner_optimizer(optimizer)["param_groups"]
    )
    counted = [int(group[COUNTER]) for group in groups if group.get(COUNTER)]
    beside = optimizer.get("base_optimizer_state_step")
    return counted or ([int(beside)] if beside else kept)


def write(opened: Opened, new: Counters) -> None:
    """Moves the counters of a checkpoint to others; unchanged ones stay."""
    old = read(opened)
    for common in opened.commons:
        _write_common(common, old, new)
    for optimizer in opened.optimizers:
        if new.optimizer_step is not None and old.optimizer_step is not None:
            _advance(optimizer, new.optimizer_step - old.optimizer_step)
        _write_scaler(scaler_of(optimizer), old, new)


def scaler_of(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of FP16's loss scaler; without one, perhaps none of them."""
    if "loss_scaler" in optimizer:
        return vars(optimizer["loss_scaler"])
    # Without ZeRO they lie among the optimizer's own.
    return optimizer  # pyright: ignore[reportReturnType]


def _write_common(common: dict[str, Any], old: Counters, new: Counters) -> None:
    batches, updates = new.step - old.step, new.updates - old.updates
    common["global_steps"] += batches
    common["skipped_steps"] += batches - updates
    if old.step and "global_samples" in common:
        common["global_samples"] += common["global_samples"] // old.step * batches
    schedule = common.get("lr_scheduler") or {}
    for key in SCHEDULES:
        if isinstance(schedule.get(key), int):
            schedule[key] += updates


def _write_scaler(scaler: dict[str, Any], old: Counters, new: Counters) -> None:
    if new.loss_scale != old.loss_scale and "cur_scale" in scaler:
        scaler["cur_scale"] = new.loss_scale
    if "last_overflow_iter" in scaler:
        scaler["cur_iter"] += new.step - old.step
        scaler["last_overflow_iter"] = scaler["cur_iter"] - new.clean_steps - 1
    if "cur_hysteresis" in scaler:
        scaler["cur_hysteresis"] = new.hysteresis


def _advance(optimizer: dict[str, Any], more: int) -> None:
    """Adds to all counters of an optimizer that have begun to count."""
    if not more:
        return
    for holder in _holders(optimizer):
        if holder.get(COUNTER):
            # A tensor would be changed in place wherever else it is held.
            holder[COUNTER] = holder[COUNTER] + more
    if optimizer.get("base_optimizer_state_step"):
        optimizer["base_optimizer_state_step"] += more


def _holders(optimizer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from states(optimizer)  # pyright: ignore[reportReturnType]
    if not _is_elastic(optimizer):
        yield from inner_optimizer(optimizer)["param_groups"]


def _largest(optimizer: Mapping[str, Any]) -> list[int]:
    """The largest count in each group: FusedAdam counts at one of its parameters."""
    inner, found = inner_optimizer(optimizer), []
    for group in inner["param_groups"]:
        kept = [inner["state"].get(number, {}) for number in group["params"]]
        found += [max((int(s[COUNTER]) for s in kept if COUNTER in s), default=0)]
    return [count for count in found if count]


def _is_elastic(optimizer: Mapping[str, Any]) -> bool:
    return isinstance(optimizer.get("base_optimizer_state"), list)


def as_number(value: Any) -> Any:
    """Returns a number of a tensor without axes, other values as they are."""
    return value.item() if isinstance(value, torch.Tensor) else value

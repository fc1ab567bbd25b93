"""Readers of what DeepSpeed's engine holds, at any ZeRO stage.

They return what the mathematics means, not what DeepSpeed stores: gradients are
unscaled (MISMATCHES D15), moments are zeros before the first update. Every rank takes
part.
"""

import functools
from typing import Any

import torch


def masters(engine: Any) -> dict[str, torch.Tensor]:
    """Returns {torch name: master parameter}, float32 and whole on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param

    if engine.zero_optimization():
        read = safe_get_full_fp32_param
    else:
        read = stage_0_tensors(engine).get
    return _copies(engine, read)


def moments(engine: Any, key: str) -> dict[str, torch.Tensor]:
    """Returns {torch name: moment}, whole on every rank; zeros before the first update.

    Args:
      engine: as from `engine.initialize`.
      key: name of the moment in the torch optimizer's state.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    if not any(key in state for state in inner_optimizer(engine).state.values()):
        return {
            name: torch.zeros_like(master) for name, master in masters(engine).items()
        }
    if engine.zero_optimization():
        link_states(engine)
        read = functools.partial(safe_get_full_optimizer_state, optim_state_key=key)
    else:
        read = stage_0_tensors(engine, key).get
    return _copies(engine, read)


def gradients(engine: Any) -> dict[str, torch.Tensor]:
    """Returns {torch name: gradient of the global batch's mean loss} on every rank.

    The gradients are float32, unscaled and not clipped. To be called between the last
    `engine.backward` of a step and its `engine.step`.
    """
    from deepspeed.utils import safe_get_full_grad

    # At ZeRO stage 0 the loss was not scaled (MISMATCHES D1).
    scale = loss_scale(engine) if engine.zero_optimization() else 1.0
    read: Any = safe_get_full_grad
    return {
        name: read(param).float() / scale
        for name, param in engine.module.named_parameters()
    }


def loss_scale(engine: Any) -> float:
    """Returns the scale that DeepSpeed's scaler holds for the coming step; 1 if none.

    At ZeRO stage 0 it divides the gradients of a loss that it has not multiplied
    (MISMATCHES D1).
    """
    return float(getattr(engine.optimizer, "loss_scale", None) or 1.0)


def updates(engine: Any) -> int:
    """Returns the updates applied, by the optimizer's own counter where it has one.

    At ZeRO stage 0, FP16 and BF16 begin with one update of zero gradients, before
    training (MISMATCHES D2).
    """
    counters = [
        int(state["step"])
        for state in inner_optimizer(engine).state.values()
        if "step" in state
    ]
    return max(counters, default=engine.global_steps - engine.skipped_steps)


def inner_optimizer(engine: Any) -> torch.optim.Optimizer:
    """Returns the torch optimizer that holds the moments, inside DeepSpeed's own."""
    # FP32 at ZeRO stage 0 is not wrapped.
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def stage_0_tensors(
    engine: Any, key: str | None = None
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Returns {parameter: master, or its moment `key`} at ZeRO stage 0.

    DeepSpeed's `safe_get_full_*` cannot read these (MISMATCHES D15).
    """
    optimizer = engine.optimizer
    # FP16_Optimizer calls its groups so under BF16, too.
    groups = getattr(optimizer, "fp16_groups", [list(engine.module.parameters())])
    state = inner_optimizer(engine).state
    if not hasattr(optimizer, "fp32_groups_flat"):
        # One master per parameter (FP16_UnfusedOptimizer), or the parameter itself.
        held = getattr(optimizer, "fp32_groups", groups)
        return {
            param: master if key is None else state[master][key]
            for params, masters in zip(groups, held)
            for param, master in zip(params, masters)
        }
    found = {}
    for params, flat in zip(groups, optimizer.fp32_groups_flat):
        values = flat if key is None else state[flat][key]
        pieces = values.split([param.numel() for param in params])
        for param, piece in zip(params, pieces):
            found[param] = piece.view(param.shape)
    return found


def link_states(engine: Any) -> None:
    """Makes DeepSpeed map every group's optimizer state to its parameters.

    DeepSpeed 0.19.8 does so once, after the first group's first step.
    """
    # Stage 3 reads its states without this map.
    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _copies(engine: Any, read: Any) -> dict[str, torch.Tensor]:
    return {
        name: read(param).detach().clone()
        for name, param in engine.module.named_parameters()
    }

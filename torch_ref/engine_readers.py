"""Readers of what DeepSpeed's engine holds, at any ZeRO stage.

They return what the mathematics means, not what DeepSpeed stores: gradients are
unscaled (MISMATCHES D15), moments are what the optimizer starts from before the first
update. What DeepSpeed does not hold is absent: moments of frozen parameters, gradients
of parameters that no backward pass has reached where DeepSpeed can tell. Every rank
takes part.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from torch_ref import batches, zero_pieces

Tensors = dict[str, torch.Tensor]
"""{torch name: tensor}."""

Copy = Callable[[Tensors], Tensors]
"""Copies tensors, or leaves them."""

_NAMED: weakref.WeakKeyDictionary[Any, dict[str, weakref.ref]] = (
    weakref.WeakKeyDictionary()
)
"""Engine -> its parameters; naming them takes a walk through all modules."""


class Partition(NamedTuple):
    """What ZeRO flattens into one tensor.

    Attributes:
      params: the model's parameters.
      flat: this rank's share of their masters; the optimizer's state belongs to it.
    """

    params: list[torch.nn.Parameter]
    flat: torch.Tensor


def masters(engine: Any, copy: Copy = batches.copies) -> Tensors:
    """Returns {torch name: master parameter}, float32 and whole on every rank.

    A parameter without a master, as a frozen one, is its own.

    Args:
      engine: as from `engine.initialize`.
      copy: copies tensors; `dict` keeps those that train, for whoever copies them.
    """
    if engine.zero_optimization():
        found = copy(zero_pieces.masters(_trained(engine)))
    else:
        found = copy(_held_of(engine, stage_0_tensors(engine)))
    rest = {n: param for n, param in _named(engine).items() if n not in found}
    with _whole(list(rest.values())):
        found |= {n: whole.float() for n, whole in batches.copies(rest).items()}
    return {name: found[name] for name in _named(engine)}


def weights(engine: Any) -> Tensors:
    """Returns {torch name: parameter as a forward pass reads it} in its own dtype."""
    params = _named(engine)
    with _whole(list(params.values())):
        return batches.copies(params)


def moments(
    engine: Any, key: str, start: float = 0.0, copy: Copy = batches.copies
) -> Tensors:
    """Returns {torch name: moment} of trained parameters, whole on every rank.

    Args:
      engine: as from `engine.initialize`.
      key: name of the moment in the torch optimizer's state.
      start: what the optimizer starts from, before its first update.
      copy: as of `masters`.
    """
    if not any(inner_optimizer(engine).state.values()):
        values = masters(engine)
        return {n: torch.full_like(values[n], start) for n in _trained(engine)}
    if not engine.zero_optimization():
        return copy(_held_of(engine, stage_0_tensors(engine, key)))
    flats = _flat_states(engine, key)
    cut = {n: param for n, param in _trained(engine).items() if id(param) in flats}
    return copy(zero_pieces.states(cut, key, flats))


def gradients(engine: Any) -> Tensors:
    """Returns {torch name: gradient of the global batch's mean loss} on every rank.

    The gradients are float32, unscaled and not clipped. To be called between the last
    `engine.backward` of a step and its `engine.step`. ZeRO holds zeros for a parameter
    that the step did not use.
    """
    from deepspeed.utils import safe_get_full_grad

    scale = loss_factor(engine)
    read: Any = safe_get_full_grad
    trained = _trained(engine)
    ready = {name: param for name, param in trained.items() if _is_ready(param)}
    rest = {name: param for name, param in trained.items() if name not in ready}
    found = zero_pieces.gradients(rest) if engine.zero_optimization() else {}
    found |= {name: read(param) for name, param in ready.items()}
    return {n: found[n].detach().float() / scale for n in trained if n in found}


def loss_scale(engine: Any) -> float:
    """Returns the scale that DeepSpeed's scaler holds for the coming step; 1 if none.

    At ZeRO stage 0 it divides the gradients of a loss that it has not multiplied
    (MISMATCHES D1).
    """
    scaler = autocast_scaler(engine)
    if scaler is not None:
        return float(scaler.get_scale())
    return float(getattr(engine.optimizer, "loss_scale", None) or 1.0)


def loss_factor(engine: Any) -> float:
    """Returns what really multiplies the loss of the coming backward pass."""
    # At ZeRO stage 0 only torch's own scaler scales the loss (MISMATCHES D1).
    if engine.zero_optimization() or autocast_scaler(engine) is not None:
        return loss_scale(engine)
    return 1.0


def autocast_scaler(engine: Any) -> Any:
    """Returns torch's GradScaler that "torch_autocast" in fp16 brings, or None."""
    inside = getattr(engine.optimizer, "torch_autocast_gradscaler", None)
    return inside or getattr(engine, "torch_autocast_z0_gradscaler", None)


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


def group_params(engine: Any) -> list[list[torch.nn.Parameter]]:
    """Returns the model's parameters of each group of the optimizer."""
    optimizer = engine.optimizer
    if not engine.zero_optimization():
        groups = [group["params"] for group in optimizer.param_groups]
        return [list(group) for group in getattr(optimizer, "fp16_groups", groups)]
    numbers = getattr(optimizer, "sub_group_to_group_id", None)
    found: list[list[torch.nn.Parameter]] = [[] for _ in optimizer.param_groups]
    for index, partition in enumerate(partitions(engine)):
        # Stage 3 cuts a group into several.
        found[numbers[index] if numbers else index] += partition.params
    return found


def partitions(engine: Any) -> list[Partition]:
    """Returns what ZeRO has cut the parameters into, at stages 1 to 3."""
    optimizer = engine.optimizer
    for params, flats in (
        ("fp16_groups", "fp32_partitioned_groups_flat"),
        ("bit16_groups", "single_partition_of_fp32_groups"),
        ("bf16_groups", "fp32_groups_flat_partition"),
    ):
        if hasattr(optimizer, flats):
            pairs = zip(getattr(optimizer, params), getattr(optimizer, flats))
            return [Partition(list(group), flat) for group, flat in pairs]
    raise TypeError(f"{type(optimizer).__name__} is no ZeRO optimizer of DeepSpeed's")


def stage_0_tensors(
    engine: Any, key: str | None = None
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Returns {parameter: master, or its moment `key`} at ZeRO stage 0.

    DeepSpeed's `safe_get_full_*` cannot read these (MISMATCHES D15). A parameter that
    the optimizer holds nothing of is left out.
    """
    optimizer = engine.optimizer
    # FP16_Optimizer calls its groups so under BF16, too.
    groups = getattr(optimizer, "fp16_groups", [list(engine.module.parameters())])
    flats = getattr(optimizer, "fp32_groups_flat", None)
    if flats is None:
        # One master per parameter (FP16_UnfusedOptimizer), or the parameter itself.
        flats = getattr(optimizer, "fp32_groups", groups)
        pairs = [
            pair for params, held in zip(groups, flats) for pair in zip(params, held)
        ]
        return {
            param: value
            for param, master in pairs
            if (value := _held(engine, master, key)) is not None
        }
    found = {}
    for params, flat in zip(groups, flats):
        values = _held(engine, flat, key)
        if values is not None:
            pieces = values.split([param.numel() for param in params])
            views = [piece.view(param.shape) for param, piece in zip(params, pieces)]
            found |= dict(zip(params, views))
    return found


def link_states(engine: Any) -> None:
    """Makes DeepSpeed map every group's optimizer state to its parameters.

    DeepSpeed 0.19.8 does so once, after the first group's first step.
    """
    # Stage 3 reads its states without this map.
    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _held(engine: Any, master: torch.Tensor, key: str | None) -> torch.Tensor | None:
    """Returns a master, or its moment if the optimizer has one."""
    # Not by subscript, which would make an empty state.
    return master if key is None else state_of(engine, master).get(key)


def state_of(engine: Any, master: torch.Tensor) -> dict[str, Any]:
    """Returns the state that the torch optimizer holds of a master; {} if none."""
    return inner_optimizer(engine).state.get(master, {})


def _flat_states(engine: Any, key: str) -> dict[int, torch.Tensor]:
    """Returns {id of a parameter: this rank's share of a state of its group}.

    On every rank the same parameters: a rank cannot tell from a parameter alone, of
    which it may hold no part.
    """
    return {
        id(param): value
        for partition in partitions(engine)
        if isinstance(value := state_of(engine, partition.flat).get(key), torch.Tensor)
        for param in partition.params
    }


def _named(engine: Any) -> dict[str, Any]:
    """Returns the model's parameters, which an engine never exchanges for others."""
    if engine not in _NAMED:
        named = engine.module.named_parameters()
        _NAMED[engine] = {name: weakref.ref(param) for name, param in named}
    return {name: held() for name, held in _NAMED[engine].items()}


def _trained(engine: Any) -> dict[str, Any]:
    return {n: param for n, param in _named(engine).items() if param.requires_grad}


def _is_ready(param: Any) -> bool:
    """True if DeepSpeed reads a gradient from the parameter itself, as it lies there or
    from BF16's buffer."""
    return param.grad is not None or getattr(param, "_hp_grad", None) is not None


def _held_of(engine: Any, held: dict[torch.nn.Parameter, torch.Tensor]) -> Tensors:
    """Returns what is held of trained parameters by their names."""
    found = {name: held.get(param) for name, param in _trained(engine).items()}
    return {name: value for name, value in found.items() if value is not None}


@contextlib.contextmanager
def _whole(params: list[torch.nn.Parameter]) -> Iterator[None]:
    """Gathers those parameters that stage 3 has cut into pieces, for the context."""
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    # Those that are whole stay so: gathering would cut them on its way out.
    cut = [
        param
        for param in params
        if getattr(param, "ds_status", None) == ZeroParamStatus.NOT_AVAILABLE
    ]
    if not cut:
        yield
        return
    with deepspeed.zero.GatheredParameters(cut):
        yield

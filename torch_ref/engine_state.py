"""Saves and loads DeepSpeed's engine, and fills it with a state from elsewhere, at any
ZeRO stage."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torch_ref import engine_readers, kernels

NamedTensors = Mapping[str, torch.Tensor]
"""{torch name: whole tensor}."""
COUNTED_AS_TENSOR = (torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop)
"""Optimizers whose state counts updates in a float tensor; their subclasses, too."""
COUNTED_AS_NUMBER = ("FusedAdam", "DeepSpeedCPUAdam")
"""Names of DeepSpeed's optimizers whose state counts updates in an int."""


def save(engine: Any, folder: pathlib.Path, tag: str) -> None:
    """Writes DeepSpeed's checkpoint `folder/tag`; returns when every rank has."""
    with kernels.quiet():
        engine.save_checkpoint(str(folder), tag, save_latest=False)


def load(
    engine: Any, folder: pathlib.Path, tag: str, read: Callable[[str], Any]
) -> None:
    """Loads DeepSpeed's checkpoint `folder/tag` into a fresh engine of as many ranks.

    Args:
      engine: as from `engine.initialize`.
      folder: folder of the checkpoints.
      tag: name of the checkpoint.
      read: path -> content of the file.
    """
    # DeepSpeed itself would unpickle the files with `weights_only=False`, which runs
    # whatever they hold.
    engine.checkpoint_engine.load = lambda path, map_location=None: read(path)
    with kernels.quiet():
        engine.load_checkpoint(str(folder), tag)
    _recount(engine)


def put_tensors(
    engine: Any, masters: NamedTensors, moments: Mapping[str, NamedTensors], count: int
) -> None:
    """Sets masters, moments, the optimizer's counter and the 16-bit copies of masters.

    Args:
      engine: as from `engine.initialize`, before its first step.
      masters: {torch name: whole parameter}.
      moments: {key in the optimizer's state: such a mapping}; empty: unchanged.
      count: updates applied so far.
    """
    stage = engine.zero_optimization_stage()
    if stage == 3:
        engine.optimizer.checkpoint_event_prologue()
    if moments or count:
        _make_states(engine, list(moments), count)
    put = {0: _put_whole, 3: _put_pieces}.get(stage, _put_fragments)
    put(engine, masters, None)
    for key, tensors in moments.items():
        put(engine, tensors, key)
    _refresh_copies(engine, masters)
    if stage == 3:
        engine.optimizer.checkpoint_event_epilogue()


def put_counters(engine: Any, step: int, updates: int, batch_size: int) -> None:
    """Sets DeepSpeed's counters of batches, skipped batches and samples."""
    engine.global_steps = step
    engine.skipped_steps = step - updates
    engine.global_samples = step * batch_size
    engine.micro_steps = step * engine.gradient_accumulation_steps()


def put_scaler(
    engine: Any, scale: float, step: int, clean_steps: int, hysteresis: int
) -> None:
    """Sets FP16's loss scaler, as far as it has these fields.

    Args:
      engine: as from `engine.initialize`.
      scale: loss scale.
      step: steps so far; the scaler's own counter of iterations.
      clean_steps: steps since the last overflow.
      hysteresis: overflows left before the scale halves.
    """
    if engine.zero_optimization():
        scaler = engine.optimizer.loss_scaler
    else:
        scaler = engine.optimizer.loss_scale_config
    scaler.cur_scale = scale
    # A static scaler has nothing but its scale; without ZeRO there is no hysteresis.
    if hasattr(scaler, "last_overflow_iter"):
        scaler.cur_iter = step
        scaler.last_overflow_iter = step - clean_steps - 1
    if hasattr(scaler, "cur_hysteresis"):
        scaler.cur_hysteresis = hysteresis


def _recount(engine: Any) -> None:
    """Makes the CPU's FusedAdam count up to where it was, for equal powers of beta.

    FusedAdam multiplies the powers up in memory that is in no checkpoint. After a gap
    in the count it calls pow instead, whose last digits differ
    (csrc/includes/cpu_adam.h, IncrementStep).
    """
    inner: Any = engine_readers.inner_optimizer(engine)
    is_fused = hasattr(inner, "multi_tensor_adam")
    if not is_fused or engine.device.type != "cpu":
        return
    # Updates of a tensor of zeros, at learning rate 0: only the count moves.
    nothing = [[torch.zeros(1)] for _ in range(4)]
    group = inner.param_groups[0]
    for count in range(1, engine_readers.updates(engine) + 1):
        inner.multi_tensor_adam(
            1,
            inner._dummy_overflow_buf,
            nothing,
            0.0,
            *group["betas"],
            group["eps"],
            count,
            inner.adam_w_mode,
            1,
            0.0,
        )


def _make_states(engine: Any, keys: list[str], count: int) -> None:
    """Makes the optimizer's state as its first update would: zeros, and a counter."""
    inner = engine_readers.inner_optimizer(engine)
    # At stage 3 the tensors that are updated are in no group between steps.
    updated = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    if updated is None:
        updated = [param for group in inner.param_groups for param in group["params"]]
    for param in updated:
        inner.state[param] |= {key: torch.zeros_like(param) for key in keys}
        if isinstance(inner, COUNTED_AS_TENSOR):
            inner.state[param]["step"] = torch.tensor(float(count))
        elif type(inner).__name__ in COUNTED_AS_NUMBER:
            inner.state[param]["step"] = count


def _refresh_copies(engine: Any, masters: NamedTensors) -> None:
    """Rounds the masters into the parameters that forward and backward use."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        for name, param in engine.module.named_parameters():
            param.data.copy_(masters[name])
    elif stage == 3:
        for number, _ in enumerate(engine.optimizer.fp32_partitioned_groups_flat):
            engine.optimizer._reassign_or_swap_out_partitioned_parameters(number)
    else:
        engine.optimizer.update_lp_params()


def _put_whole(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stage 0: every rank holds whole tensors."""
    held = engine_readers.stage_0_tensors(engine, key)
    for name, param in engine.module.named_parameters():
        held[param].data.copy_(tensors[name])


def _put_fragments(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stages 1 and 2: a rank holds its slice of all parameters, concatenated."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    if key:
        engine_readers.link_states(engine)
    for name, param in engine.module.named_parameters():
        if key:
            safe_set_full_optimizer_state(param, tensors[name], key)
        else:
            safe_set_full_fp32_param(param, tensors[name])


def _put_pieces(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stage 3: a rank holds one piece of each parameter."""
    for name, param in engine.module.named_parameters():
        piece, _ = engine.optimizer._get_fp32_opt_state_partition(
            param, False, optim_state_key=key
        )
        first = piece.numel() * engine.optimizer._get_param_partition_rank(param)
        # The last pieces are padded; `safe_set_full_*` fails on those.
        share = tensors[name].flatten()[first : first + piece.numel()]
        piece.data[: share.numel()].copy_(share)

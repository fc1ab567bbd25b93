"""DeepSpeed's engine saved, loaded, and filled with a state that came from elsewhere,
at any ZeRO stage."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from torch_ref import engine as engines

NamedTensors = Mapping[str, torch.Tensor]
COUNTED_AS_TENSOR = (torch.optim.Adam, torch.optim.Adagrad, torch.optim.RMSprop)
COUNTED_AS_NUMBER = ("FusedAdam",)


def save(engine: Any, folder: pathlib.Path, tag: str) -> None:
    """Writes DeepSpeed's checkpoint `folder/tag`; returns when every rank has written
    its files."""
    with engines.quiet():
        engine.save_checkpoint(str(folder), tag, save_latest=False)


def load(
    engine: Any, folder: pathlib.Path, tag: str, read: Callable[[str], Any]
) -> None:
    """Loads DeepSpeed's checkpoint `folder/tag` into a fresh engine of as many ranks.

    DeepSpeed itself would unpickle the files with `weights_only=False`.

    Args:
      engine: of `engine.initialize`.
      folder: of the checkpoints.
      tag: which one.
      read: path -> what the file holds.
    """
    engine.checkpoint_engine.load = lambda path, map_location=None: read(path)
    with engines.quiet():
        engine.load_checkpoint(str(folder), tag)
    _recount(engine)


def put_tensors(
    engine: Any, masters: NamedTensors, moments: Mapping[str, NamedTensors], count: int
) -> None:
    """Sets masters, moments, the optimizer's own counter, and the 16-bit copies that
    follow from the masters.

    Args:
      engine: that has made no step.
      masters: torch name -> whole parameter.
      moments: key in the optimizer's state -> such a mapping; empty: they stay as they
        are.
      count: updates so far.
    """
    stage = engine.zero_optimization_stage()
    if stage == 3:
        engine.optimizer.checkpoint_event_prologue()
    if moments or count:
        _begin(engine, list(moments), count)
    for key, tensors in ((None, masters), *moments.items()):
        put = (
            _put_whole if stage == 0 else _put_pieces if stage == 3 else _put_fragments
        )
        put(engine, tensors, key)
    if stage == 0:
        for name, param in engine.module.named_parameters():
            param.data.copy_(masters[name])
    elif stage == 3:
        for number, _ in enumerate(engine.optimizer.fp32_partitioned_groups_flat):
            engine.optimizer._reassign_or_swap_out_partitioned_parameters(number)
        engine.optimizer.checkpoint_event_epilogue()
    else:
        engine.optimizer.update_lp_params()


def put_counters(engine: Any, step: int, updates: int, batch_size: int) -> None:
    """Sets DeepSpeed's counters of batches, of skipped ones among them, and of samples."""
    engine.global_steps, engine.skipped_steps = step, step - updates
    engine.global_samples = step * batch_size
    engine.micro_steps = step * engine.gradient_accumulation_steps()


def put_scaler(
    engine: Any, scale: float, step: int, clean_steps: int, hysteresis: int
) -> None:
    """Sets FP16's loss scaler; without ZeRO it has no hysteresis, and a static one has
    nothing but a scale."""
    scaler = (
        engine.optimizer.loss_scaler
        if engine.zero_optimization()
        else engine.optimizer.loss_scale_config
    )
    scaler.cur_scale = scale
    if hasattr(scaler, "last_overflow_iter"):
        scaler.cur_iter, scaler.last_overflow_iter = step, step - clean_steps - 1
    if hasattr(scaler, "cur_hysteresis"):
        scaler.cur_hysteresis = hysteresis


def _recount(engine: Any) -> None:
    """Lets FusedAdam of a CPU count to where it was: as far as it has come, the powers
    of its betas are a product.

    It multiplies them up in memory that is in no checkpoint, and after a gap in the
    count takes the power instead, which is another number in its last digits
    (csrc/includes/cpu_adam.h, IncrementStep).
    """
    inner = engines.wrapped(engine)
    if type(inner).__name__ not in COUNTED_AS_NUMBER or engine.device.type != "cpu":
        return
    nothing, group = [[torch.zeros(1)] for _ in range(4)], inner.param_groups[0]
    for count in range(1, engines.updates(engine) + 1):
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


def _begin(engine: Any, keys: list[str], count: int) -> None:
    """Makes the optimizer's state, which it would make at its first update, of zeros
    and that counter."""
    inner = engines.wrapped(engine)
    flat = getattr(
        engine.optimizer, "fp32_partitioned_groups_flat", None
    )  # at stage 3 in no group between steps
    updated = (
        flat
        if flat is not None
        else [param for group in inner.param_groups for param in group["params"]]
    )
    for param in updated:
        inner.state[param] |= {key: torch.zeros_like(param) for key in keys}
        if isinstance(inner, COUNTED_AS_TENSOR):
            inner.state[param]["step"] = torch.tensor(float(count))
        elif type(inner).__name__ in COUNTED_AS_NUMBER:
            inner.state[param]["step"] = count


def _put_whole(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stage 0: every rank holds all of it."""
    held = engines.whole(engine, key)
    for name, param in engine.module.named_parameters():
        held[param].data.copy_(tensors[name])


def _put_fragments(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stages 1 and 2: a rank holds what falls into its part of all parameters in a row."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    if key:
        engines.link_states(engine)
    for name, param in engine.module.named_parameters():
        if key:
            safe_set_full_optimizer_state(param, tensors[name], key)
        else:
            safe_set_full_fp32_param(param, tensors[name])


def _put_pieces(engine: Any, tensors: NamedTensors, key: str | None) -> None:
    """Stage 3: a rank holds one piece of each parameter, the last one padded, where
    `safe_set_full_*` would fail."""
    for name, param in engine.module.named_parameters():
        piece, _ = engine.optimizer._get_fp32_opt_state_partition(
            param, False, optim_state_key=key
        )
        first = piece.numel() * engine.optimizer._get_param_partition_rank(param)
        share = tensors[name].flatten()[first : first + piece.numel()]
        piece.data[: share.numel()].copy_(share)

"""DeepSpeed's engine: initialization, and the two calls that make a training step."""

from typing import Any

import torch
from torch import nn

from jaxnn.experiment.errors import UserError
from torch_ref import engine_readers, kernels


def initialize(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]
) -> Any:
    """Returns the DeepSpeed engine of a model and its optimizer, under a ds_config."""
    import deepspeed

    with kernels.quiet():
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config
        )
    return engine


def initialize_with_extra(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
    extra: str,
) -> Any:
    """`initialize` under a ds_config with keys of the user's own.

    Args:
      model: network.
      optimizer: of its parameters.
      config: ds_config, which holds the keys already.
      extra: text of `--ds_extra`.

    Raises:
      UserError: DeepSpeed takes no such configuration here.
    """
    try:
        return initialize(model, optimizer, config)
    # DeepSpeed asserts, and raises anything, at any depth.
    except Exception as error:
        if not extra:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--ds_extra: DeepSpeed stops at it here: {reason[:300]}; leave out the "
            f"key of --ds_config that causes it; they are {extra}"
        ) from error


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Sets the learning rate of the coming step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def backward(engine: Any, loss: torch.Tensor) -> None:
    """Adds the gradients of this rank's share of a microbatch to those held.

    At the last microbatch of a step DeepSpeed averages them over the ranks.
    """
    # The objective divides by the samples of the global batch already; DeepSpeed would
    # divide by the number of microbatches on top (MISMATCHES D8).
    engine.backward(loss, scale_wrt_gas=False)


def step(engine: Any, number: int) -> bool:
    """Ends a microbatch; after the last one, applies or skips the update.

    A skipped update lowers the loss scale. DeepSpeed skips what is not finite in any
    precision, except for FP32 at ZeRO stage 0, where this function does.

    Args:
      engine: as from `initialize`.
      number: step index, from 0, for the error message.

    Returns:
      True if the update was skipped.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale.
    """
    # FP32 at stage 0 has no optimizer of DeepSpeed's, only torch's own.
    if not hasattr(engine.optimizer, "overflow"):
        return _step_if_finite(engine)
    scale = engine_readers.loss_scale(engine)
    is_last = engine.is_gradient_accumulation_boundary()
    try:
        engine.step()
    except Exception as error:
        # DeepSpeed raises a bare Exception here (runtime/fp16/loss_scaler.py).
        if "loss scale already at minimum" not in str(error):
            raise
        raise _exhausted(number, scale) from None
    if is_last and _cannot_lower(engine, scale):
        raise _exhausted(number, scale)
    # Before the last microbatch the flag is still the previous step's.
    return is_last and bool(engine.optimizer.overflow)


def _step_if_finite(engine: Any) -> bool:
    """`step` with a bare torch optimizer, which would apply any gradients."""
    grads = (
        param.grad for param in engine.module.parameters() if param.grad is not None
    )
    if engine.is_gradient_accumulation_boundary() and not all(
        bool(torch.isfinite(grad).all()) for grad in grads
    ):
        engine.zero_grad()
        # As `engine.step` would, so that the next microbatch is the first of a step.
        engine.micro_steps += 1
        return True
    engine.step()
    return False


def _cannot_lower(engine: Any, scale: float) -> bool:
    """Returns True if ZeRO stage 0 skipped a step at its scaler's smallest scale.

    The scaler of stage 0 raises nothing there and would skip for ever.
    """
    scaler = getattr(engine.optimizer, "loss_scale_config", None)
    return bool(
        scaler
        and scaler.dynamic_loss_scale
        and engine.optimizer.overflow
        and scale <= scaler.min_loss_scale
    )


def _exhausted(number: int, scale: float) -> UserError:
    return UserError(
        f"step {number}: a gradient overflows at the smallest loss scale ({scale:g}); "
        "try --preprocess=standardize, --precision=bf16 or fp32, or a smaller "
        "--learning_rate"
    )

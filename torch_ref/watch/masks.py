"""Dropout masks: read from the output, or drawn a second time, on ones, from the same
random state."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Function = Callable[..., Any]

DROPOUTS: tuple[Function, ...] = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    torch.dropout,
    torch.feature_dropout,
)
"""Each takes (input, p, train or training, ...)."""

UNREACHABLE: dict[Function, str] = {
    functional.scaled_dot_product_attention: "dropout_p",
    functional.multi_head_attention_forward: "dropout_p",
    functional.alpha_dropout: "p",
    functional.feature_alpha_dropout: "p",
}
"""Function that drops inside -> name of its rate."""
SPECIAL = frozenset((*DROPOUTS, *UNREACHABLE))
"""All functions that drop."""
PLACES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
"""Arguments of scaled_dot_product_attention, which tells no signature."""


def rate(func: Function, args: Any, kwargs: Mapping[str, Any]) -> float:
    """Returns with what probability a call of `DROPOUTS` drops; 0 outside training."""
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    given = kwargs.get("training", kwargs.get("train"))
    training = given if given is not None else (args[2] if len(args) > 2 else True)
    return float(p) if training else 0.0


def drop(
    func: Function, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, np.ndarray | None]:
    """Calls a dropout; returns its output, and its mask, True: kept.

    The mask is None if it is not the one that made the output.
    """
    x = args[0] if args else kwargs["input"]
    # Before the call, which may work in place.
    if _shows_all(x):
        output = func(*args, **kwargs)
        return output, (output.detach() != 0).cpu().numpy()
    alive = (x != 0).detach()
    kept = _draw(func, x, args, kwargs)
    output = func(*args, **kwargs)
    agrees = (((output != 0).detach() == kept) | ~alive).all()
    return output, kept.cpu().numpy() if bool(agrees) else None


def _shows_all(x: torch.Tensor) -> bool:
    """True if whatever a dropout leaves of a tensor is not zero, and nothing else is:
    then its output tells, and no second draw is needed."""
    if not x.numel():
        return False
    low, high = x.detach().abs().aminmax()
    return torch.finfo(x.dtype).tiny <= float(low) and float(high) < float("inf")


def hidden_rate(func: Function, args: Any, kwargs: Mapping[str, Any]) -> float:
    """Returns with what probability a call drops where no mask can be had."""
    if func not in UNREACHABLE:
        return 0.0
    if func is functional.scaled_dot_product_attention:
        given = dict(zip(PLACES, args)) | dict(kwargs)
        return float(given.get("dropout_p", 0.0))
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    training = bound.arguments["training"]
    return float(bound.arguments[UNREACHABLE[func]]) if training else 0.0


def drops_inside(module: nn.Module) -> bool:
    """True for a recurrent layer that drops between its layers."""
    return (
        isinstance(module, nn.RNNBase)
        and module.training
        and module.dropout > 0
        and module.num_layers > 1
    )


@torch.no_grad()
def _draw(
    func: Function, x: torch.Tensor, args: Any, kwargs: dict[str, Any]
) -> torch.Tensor:
    """Returns the coming mask; the random state is afterwards what it was."""
    ones = torch.ones_like(x)
    devices = [] if x.device.type == "cpu" else [x.device]
    with torch.random.fork_rng(devices, device_type=x.device.type):
        if args:
            return func(ones, *args[1:], **kwargs) != 0
        return func(**(kwargs | {"input": ones})) != 0

"""Number formats of training; the loss scaler is DeepSpeed's own. Twin of
jaxnn/precision.py."""

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Formats of the forward and backward pass that DeepSpeed trains in; masters are
float32."""


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A floating tensor in `dtype`; integers as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """float16 and bfloat16 as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

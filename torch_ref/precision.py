"""Dtypes of training. Twin of jaxnn/precision.py."""

import torch
from torch import Tensor as Array

# DeepSpeed keeps float32 masters in every one of these, so the compute dtype alone says
# what jaxnn's POLICIES say. It has no fp64 engine.
DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""`--precision` -> dtype of the forward and backward pass."""


def cast(x: Array, dtype: torch.dtype) -> Array:
    """Casts a floating tensor to `dtype`; an integer tensor is kept."""
    return x.to(dtype) if x.is_floating_point() else x


def at_least_float32(x: Array) -> Array:
    """Casts float16 and bfloat16 to float32; float32 and float64 are kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

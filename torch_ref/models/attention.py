"""Multi-head self-attention (Vaswani et al. 2017). Twin of jaxnn/models/attention.py."""

import math

import torch

from torch_ref.precision import at_least_float32


def self_attention(qkv: torch.Tensor, num_heads: int, causal: bool) -> torch.Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for each head of d features, with the softmax
    in float32 or float64.

    Args:
      qkv: [batch, steps, 3 * width], queries, keys and values side by side, each head
        after head.
      num_heads: heads; divides width.
      causal: a step sees itself and earlier ones; else all.

    Returns:
      [batch, steps, width], head after head.
    """
    batch, steps, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    features = width // num_heads
    q, k, v = qkv.reshape(batch, steps, 3, num_heads, features).permute(2, 0, 3, 1, 4)
    # torch would multiply float16 by a float32 number; jax rounds the number first.
    scores = at_least_float32(
        q * q.new_tensor(score_scale(features))
    ) @ at_least_float32(k).transpose(-1, -2)
    if causal:
        scores = scores.masked_fill(
            ~visible(steps).to(qkv.device), torch.finfo(scores.dtype).min
        )
    mixed = torch.softmax(scores, dim=-1).to(v.dtype) @ v
    return mixed.transpose(1, 2).reshape(batch, steps, width)


def score_scale(features: int) -> float:
    """What the product of a query and a key of so many features is multiplied by."""
    return 1 / math.sqrt(features)


def visible(steps: int) -> torch.Tensor:
    """[1, 1, steps, steps] bool: whether a query (third axis) sees a key (fourth),
    itself and earlier ones."""
    return torch.ones(1, 1, steps, steps, dtype=torch.bool).tril()

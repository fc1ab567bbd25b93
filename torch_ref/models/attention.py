"""Multi-head self-attention (Vaswani et al. 2017).

Twin of jaxnn/models/attention.py.
"""

import math

import torch
from torch import Tensor as Array

from torch_ref.precision import at_least_float32


def self_attention(qkv: Array, num_heads: int, causal: bool) -> Array:
    """softmax(q k^T / sqrt(d) + mask) v for each head of d features.

    Args:
      qkv: [batch, steps, 3 * width] queries, keys and values side by side, each of them
        head after head.
      num_heads: number of heads; divides width.
      causal: True if a step sees itself and earlier steps, False if it sees all.

    Returns:
      [batch, steps, width], head after head, in the dtype of `qkv`.
    """
    batch, steps, _ = qkv.shape
    features = qkv.shape[-1] // (3 * num_heads)

    # q, k and v are [batch, num_heads, steps, features] each.
    heads = qkv.reshape(batch, steps, 3, num_heads, features)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    # torch would multiply float16 by a float32 number; jax rounds the number first.
    scale = q.new_tensor(score_scale(features))

    # Scores and softmax are in float32 or wider: float16 overflows at 65504.
    scores = at_least_float32(q * scale) @ at_least_float32(k).swapaxes(-1, -2)
    if causal:
        # Not -inf, with which a step that sees nothing would give NaN.
        least = torch.finfo(scores.dtype).min
        scores = torch.where(visible(steps).to(qkv.device), scores, least)
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    return (weights @ v).swapaxes(1, 2).reshape(batch, steps, num_heads * features)


def score_scale(features: int) -> float:
    """Factor on the product of a query and a key of so many features."""
    return 1 / math.sqrt(features)


def visible(steps: int) -> Array:
    """[1, 1, steps, steps] bool, True where a query (third axis) sees a key (fourth).

    A query sees its own step and earlier ones.
    """
    return torch.tril(torch.ones((1, 1, steps, steps), dtype=torch.bool))

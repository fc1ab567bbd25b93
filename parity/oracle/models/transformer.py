"""Pre-norm transformer (Vaswani et al. 2017; Radford et al. 2019)."""

import math

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.activations import gelu
from parity.oracle.dropout import dropout
from parity.oracle.initializers import INITIALIZERS, normal
from parity.oracle.layers import dense, embed, layer_norm
from parity.oracle.operations import mean, reshape, softmax, transpose, where
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor, lift

EMBEDDING_DEVIATION = 0.02
"""Standard deviation of initial embeddings and positions, as in GPT-2."""


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    """Embedding and positions, blocks, a last norm and a Dense layer `output`.

    Args:
      scope: parameters and masks.
      experiment: model flags.
      signature: shapes of the inputs and outputs.
      x: [batch, steps] tokens, or [batch, steps, ...] numbers.

    Returns:
      [batch, steps, outputs] if the signature is per step; else [batch, outputs] of the
      last position (decoder) or of the mean over positions (encoder).
    """
    causal = experiment.model == "transformer"
    rate = experiment.dropout_rates[0] if experiment.dropout_rates else 0.0

    y = dropout(_embed(scope, experiment, signature, x), rate, 0, scope.masks)
    for number in range(experiment.num_layers):
        # Dropout layers are numbered in order: the embedding's, then two per block.
        first_dropout = 1 + 2 * number
        y = _block(scope, f"block_{number}", experiment, causal, rate, first_dropout, y)

    y = layer_norm(scope, "norm_output", y)
    if not signature.per_step:
        # Only the last position of a decoder has seen all the others.
        y = y[:, -1] if causal else mean(y, axis=1)
    initializer = INITIALIZERS[experiment.initializer]
    return dense(scope, "output", signature.num_outputs, y, initializer)


def _embed(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    """Embeds the inputs and adds learned positions: -> [batch, steps, width]."""
    steps = x.shape[1]
    width = experiment.width
    draw = normal(EMBEDDING_DEVIATION)

    if signature.num_tokens:
        tokens = np.asarray(x)
        y = embed(scope, "embedding", tokens, signature.num_tokens, width, draw)
        scope.keep("embedding", y)
    else:
        y = reshape(lift(x), (*x.shape[:2], -1))
        y = dense(scope, "embedding", width, y, INITIALIZERS[experiment.initializer])

    longest = signature.input_shape[0]
    positions = scope.param("positions/embedding", (longest, width), draw)
    return y + positions[:steps]


def _block(
    scope: Scope,
    name: str,
    experiment: Experiment,
    causal: bool,
    rate: float,
    first_dropout: int,
    x: Tensor,
) -> Tensor:
    """x += dropout(attention(norm(x))); x += dropout(gelu(norm(x) W + b) V + c)."""
    width = x.shape[-1]
    initializer = INITIALIZERS[experiment.initializer]

    y = layer_norm(scope, f"{name}/norm_attention", x)
    qkv = dense(scope, f"{name}/qkv", 3 * width, y, initializer)
    y = self_attention(qkv, experiment.num_heads, causal)
    y = dense(scope, f"{name}/attention_output", width, y, initializer)
    x = x + dropout(y, rate, first_dropout, scope.masks)

    y = layer_norm(scope, f"{name}/norm_mlp", x)
    mlp_width = experiment.mlp_width or 4 * width
    y = dense(scope, f"{name}/mlp_in", mlp_width, y, initializer)
    y = dense(scope, f"{name}/mlp_out", width, gelu(y), initializer)
    return scope.keep(name, x + dropout(y, rate, first_dropout + 1, scope.masks))


def self_attention(qkv: Tensor, num_heads: int, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for each head of d features.

    Args:
      qkv: [batch, steps, 3 * width] queries, keys and values side by side, each made of
        `num_heads` heads.
      num_heads: number of heads; divides width.
      causal: True if a position sees itself and earlier ones, False if it sees all.

    Returns:
      [batch, steps, width], head after head.
    """
    batch, steps, _ = qkv.shape
    width = qkv.shape[2] // 3
    features = width // num_heads

    # -> [3, batch, heads, steps, features].
    split = reshape(qkv, (batch, steps, 3, num_heads, features))
    split = transpose(split, (2, 0, 3, 1, 4))
    q = split[0]
    k = split[1]
    v = split[2]

    scores = q @ transpose(k, (0, 1, 3, 2)) * (1 / math.sqrt(features))
    if causal:
        # Minus infinity is safe: every position sees itself, so no row is all masked
        # (MISMATCHES L6).
        visible = np.tril(np.ones((steps, steps), bool))
        scores = where(visible, scores, -np.inf)

    # [batch, heads, steps, features] -> [batch, steps, heads, features].
    attended = transpose(softmax(scores) @ v, (0, 2, 1, 3))
    return reshape(attended, (batch, steps, width))

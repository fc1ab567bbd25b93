"""Transformer with normalization before each part (Vaswani et al. 2017; Radford et al.
2019)."""

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


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    """Decoder or encoder: embedding and positions, blocks, a last norm and a Dense
    head.

    Args:
      scope, experiment, signature: of the pass.
      x: [batch, steps] tokens, or [batch, steps, ...] numbers.

    Returns:
      [batch, steps, outputs] of each position, or [batch, outputs] of the last
      (decoder) or their mean (encoder).
    """
    is_decoder = experiment.model == "transformer"
    rate = experiment.dropout_rates[0] if experiment.dropout_rates else 0.0
    y = dropout(_embed(scope, experiment, signature, x), rate, 0, scope.masks)
    for number in range(experiment.num_layers):
        y = _block(
            scope, f"block_{number}", experiment, is_decoder, rate, 1 + 2 * number, y
        )
    y = layer_norm(scope, "norm_output", y)
    if not signature.per_step:
        y = y[:, -1] if is_decoder else mean(y, axis=1)
    return dense(
        scope, "output", signature.num_outputs, y, INITIALIZERS[experiment.initializer]
    )


def _embed(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    steps, width, longest = x.shape[1], experiment.width, signature.input_shape[0]
    if signature.num_tokens:
        y = scope.keep(
            "embedding",
            embed(
                scope,
                "embedding",
                np.asarray(x),
                signature.num_tokens,
                width,
                normal(0.02),
            ),
        )
    else:
        y = reshape(lift(x), (*x.shape[:2], -1))
        y = dense(scope, "embedding", width, y, INITIALIZERS[experiment.initializer])
    return (
        y + scope.param("positions/embedding", (longest, width), normal(0.02))[:steps]
    )


def _block(
    scope: Scope,
    name: str,
    experiment: Experiment,
    causal: bool,
    rate: float,
    first_dropout: int,
    x: Tensor,
) -> Tensor:
    """x += dropout(attention(norm(x))), then x += dropout(gelu(norm(x) W + b) V + c)."""
    width, start = x.shape[-1], INITIALIZERS[experiment.initializer]
    qkv = dense(
        scope,
        f"{name}/qkv",
        3 * width,
        layer_norm(scope, f"{name}/norm_attention", x),
        start,
    )
    y = self_attention(qkv, experiment.num_heads, causal)
    y = dense(scope, f"{name}/attention_output", width, y, start)
    x = x + dropout(y, rate, first_dropout, scope.masks)
    y = dense(
        scope,
        f"{name}/mlp_in",
        experiment.mlp_width or 4 * width,
        layer_norm(scope, f"{name}/norm_mlp", x),
        start,
    )
    y = dense(scope, f"{name}/mlp_out", width, gelu(y), start)
    return scope.keep(name, x + dropout(y, rate, first_dropout + 1, scope.masks))


def self_attention(qkv: Tensor, num_heads: int, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v for each head of d features.

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
    split = transpose(
        reshape(qkv, (batch, steps, 3, num_heads, features)), (2, 0, 3, 1, 4)
    )
    q, k, v = split[0], split[1], split[2]
    scores = q @ transpose(k, (0, 1, 3, 2)) * (1 / math.sqrt(features))
    if causal:
        scores = where(np.tril(np.ones((steps, steps), bool)), scores, -np.inf)
    return reshape(transpose(softmax(scores) @ v, (0, 2, 1, 3)), (batch, steps, width))

"""Transformer with normalization first, on torch's scaled_dot_product_attention."""

import math

from torch import Tensor, nn
from torch.nn import functional

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment


class Transformer(nn.Module):
    """Decoder (causal) or encoder with learned positions and a dense head.

    Args:
      experiment: sizes and rate; --model=transformer is causal.
      signature: shapes of the sequences and outputs.
    """

    def __init__(self, experiment: Experiment, signature: Signature):
        super().__init__()
        width = experiment.width
        self.causal = experiment.model == "transformer"
        self.per_step = signature.per_step
        self.num_tokens = signature.num_tokens
        if signature.num_tokens:
            self.embedding = nn.Embedding(signature.num_tokens, width)
        else:
            numbers = math.prod(signature.input_shape[1:])
            self.embedding = nn.Linear(numbers, width)
        self.positions = nn.Embedding(signature.input_shape[0], width)
        self.dropout = _dropout(experiment)
        self.blocks = [Block(experiment) for _ in range(experiment.num_layers)]
        for number, block in enumerate(self.blocks):
            self.add_module(f"block_{number}", block)
        self.norm_output = nn.LayerNorm(width)
        self.output = nn.Linear(width, signature.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, steps] tokens or [batch, steps, ...] numbers -> outputs.

        They are [batch, steps, num_outputs] or [batch, num_outputs].
        """
        x = self.embedding(x if self.num_tokens else x.flatten(2))
        x = self.dropout(x + self.positions.weight[: x.shape[1]])
        for block in self.blocks:
            x = block(x)
        x = self.norm_output(x)
        if not self.per_step:
            x = x[:, -1] if self.causal else x.mean(1)
        return self.output(x)


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a residual connection.

    Args:
      experiment: sizes and rate; --model=transformer is causal.
    """

    def __init__(self, experiment: Experiment):
        super().__init__()
        width = experiment.width
        inner = experiment.mlp_width or 4 * width
        self.num_heads = experiment.num_heads
        self.causal = experiment.model == "transformer"
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, inner)
        self.mlp_out = nn.Linear(inner, width)
        self.dropout = _dropout(experiment)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, steps, width] -> [batch, steps, width]."""
        y = self.attention_output(self._attend(self.qkv(self.norm_attention(x))))
        x = x + self.dropout(y)
        y = self.mlp_out(functional.gelu(self.mlp_in(self.norm_mlp(x))))
        return x + self.dropout(y)

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, steps, width = qkv.shape
        heads = qkv.view(batch, steps, 3, self.num_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return y.transpose(1, 2).reshape(batch, steps, width // 3)


def _dropout(experiment: Experiment) -> nn.Module:
    rate = experiment.dropout_rates[0] if experiment.dropout_rates else 0.0
    return nn.Dropout(rate) if rate else nn.Identity()

"""Transformer with normalization before each part, in the order of GPT-2. Twin of
jaxnn/models/transformer.py."""

import torch
from torch import nn

from jaxnn.experiment.errors import UserError
from torch_ref.activations import gelu
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.attention import self_attention
from torch_ref.models.normalization import LayerNorm


class Transformer(nn.Module):
    """Decoder (causal) or encoder: embedding and learned positions, blocks, a last norm
    and a Linear head.

      x = dropout(embed(inputs) + positions)
      each block: x += dropout(attention(norm(x)));  x += dropout(gelu(norm(x) W + b) V + c)
      outputs = norm(x) at each position, its mean over them (encoder) or its last one (causal), through the head

    Vaswani et al. 2017; Radford et al. 2019. Embeddings and positions start as N(0,
    0.02^2), GPT-2's way, kernels and biases as the initializer says, norms at scale 1
    and bias 0. Dropout layers are counted from 0 in the order in which they are met:
    the embedding's, then two a block.

    Args:
      num_inputs: numbers of a step of real inputs.
      num_tokens: vocabulary of token inputs; 0: real inputs, through a Linear layer.
      num_outputs: width of the head.
      num_layers: blocks.
      width: features of a position.
      num_heads: attention heads; divides width.
      mlp_width: hidden units of a block's MLP.
      max_length: rows of the table of positions.
      causal: a position sees itself and earlier ones; else all.
      per_step: an output at each position instead of one for all.
      dropout_rate: of every dropout layer.
    """

    def __init__(
        self,
        num_inputs: int,
        num_tokens: int,
        num_outputs: int,
        num_layers: int,
        width: int,
        num_heads: int,
        mlp_width: int,
        max_length: int,
        causal: bool,
        per_step: bool,
        dropout_rate: float,
    ):
        super().__init__()
        self.num_tokens, self.num_layers, self.max_length = (
            num_tokens,
            num_layers,
            max_length,
        )
        self.causal, self.per_step, self.dropout_rate = causal, per_step, dropout_rate
        self.embedding = (
            _embedding(num_tokens, width)
            if num_tokens
            else nn.Linear(num_inputs, width)
        )
        self.positions = _embedding(max_length, width)
        for block in range(num_layers):
            self.add_module(
                f"block_{block}",
                Block(
                    width,
                    num_heads,
                    mlp_width,
                    causal,
                    dropout_rate,
                    first_dropout=1 + 2 * block,
                ),
            )
        self.norm_output = LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """Outputs of each position or of all.

        Args:
          x: [batch, steps] tokens, or [batch, steps, ...] real inputs such as images,
            whose rows are steps.
          masks: None outside training.

        Returns:
          [batch, steps, num_outputs] if per_step, else [batch, num_outputs].

        Raises:
          UserError: more steps than positions.
        """
        x = dropout(self._embed(x), self.dropout_rate, 0, masks)
        for block in range(self.num_layers):
            x = self.get_submodule(f"block_{block}")(x, masks)
        x = self.norm_output(x)
        if not self.per_step:
            x = x[:, -1] if self.causal else x.mean(1)
        return self.output(x)

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        steps = x.shape[1]
        if steps > self.max_length:
            raise UserError(
                f"--sequence_length: {steps} steps, but the model has "
                f"{self.max_length} positions; shorten the sequences or train a model "
                "of that length"
            )
        x = self.embedding(x if self.num_tokens else x.flatten(2))
        return x + self.positions.weight[:steps]


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a residual connection.

    Args:
      width: features of a position.
      num_heads: attention heads.
      mlp_width: hidden units of the MLP.
      causal: a position sees itself and earlier ones; else all.
      dropout_rate: after attention and MLP.
      first_dropout: index of its first dropout layer.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        causal: bool,
        dropout_rate: float,
        first_dropout: int,
    ):
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.dropout_rate, self.first_dropout = dropout_rate, first_dropout
        self.norm_attention = LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.norm_mlp = LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp_width)
        self.mlp_out = nn.Linear(mlp_width, width)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, steps, width] -> the same."""
        y = self_attention(
            self.qkv(self.norm_attention(x)), self.num_heads, self.causal
        )
        x = x + dropout(
            self.attention_output(y), self.dropout_rate, self.first_dropout, masks
        )
        y = self.mlp_out(gelu(self.mlp_in(self.norm_mlp(x))))
        return x + dropout(y, self.dropout_rate, self.first_dropout + 1, masks)


def _embedding(num: int, width: int) -> nn.Embedding:
    layer = nn.Embedding(num, width)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer

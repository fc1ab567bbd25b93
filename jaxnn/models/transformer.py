"""Transformer with normalization first, in the order of GPT-2.

Twin of torch_ref/models/transformer.py.
"""

import flax.linen as nn
from jax import Array

from jaxnn.activations import gelu
from jaxnn.dropout import MaskSource, dropout
from jaxnn.experiment.errors import UserError
from jaxnn.initializers import Initializer
from jaxnn.models.attention import self_attention
from jaxnn.models.dense import dense
from jaxnn.models.normalization import LayerNorm


class Transformer(nn.Module):
    """Decoder (causal) or encoder with learned positions and a dense head.

      x = dropout(embed(inputs) + positions)
      each block: x += dropout(attention(norm(x)))
                  x += dropout(gelu(norm(x) W + b) V + c)
      outputs = head(norm(x)) at each position, or of one vector for all: the last
                position's (causal), or the mean over positions (encoder)

    Vaswani et al. 2017; Radford et al. 2019. Dropout layers are counted from 0 in the
    order in which they are applied: the embedding's, then two for each block.

    Attributes:
      num_tokens: size of the vocabulary, or 0 if the inputs are real numbers, which a
        dense layer embeds.
      num_outputs: width of the head.
      num_layers: number of blocks.
      width: features of a position.
      num_heads: attention heads; divides width.
      mlp_width: hidden units of a block's MLP.
      max_length: rows of the table of positions.
      causal: True if a position sees itself and earlier ones, False if it sees all.
      per_step: True for an output at each position, False for one output.
      dropout_rate: rate of every dropout layer.
      initializer: initial distribution of the dense layers.
    """

    num_tokens: int
    num_outputs: int
    num_layers: int
    width: int
    num_heads: int
    mlp_width: int
    max_length: int
    causal: bool
    per_step: bool
    dropout_rate: float
    initializer: Initializer

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """Outputs of each position, or of all.

        Args:
          x: [batch, steps] tokens, or [batch, steps, ...] real inputs such as images,
            whose rows are steps.
          masks: training context, or None outside training.

        Returns:
          [batch, steps, num_outputs] if per_step, else [batch, num_outputs].

        Raises:
          UserError: there are more steps than positions.
        """
        x = dropout(self.embed(x), self.dropout_rate, 0, masks)
        for block in range(self.num_layers):
            x = Block(
                self.num_heads,
                self.mlp_width,
                self.causal,
                self.dropout_rate,
                self.initializer,
                first_dropout=1 + 2 * block,
                name=f"block_{block}",
            )(x, masks)
        x = LayerNorm(name="norm_output")(x)
        if not self.per_step:
            x = x[:, -1] if self.causal else x.mean(1)
        return dense(x, self.num_outputs, self.initializer, "output")

    def embed(self, x: Array) -> Array:
        """Embeds inputs and adds the positions: [batch, steps, ...] -> [..., width]."""
        steps = x.shape[1]
        if steps > self.max_length:
            raise UserError(
                f"--sequence_length: {steps} steps, but the model has "
                f"{self.max_length} positions; shorten the sequences or train a model "
                "of that length"
            )
        # GPT-2's way, whatever the initializer of the dense layers.
        start = nn.initializers.normal(0.02)
        if self.num_tokens:
            x = nn.Embed(
                self.num_tokens, self.width, embedding_init=start, name="embedding"
            )(x)
        else:
            x = x.reshape(*x.shape[:2], -1)
            x = dense(x, self.width, self.initializer, "embedding")
        # A slice of the table, whose gradient needs no scatter.
        positions = nn.Embed(
            self.max_length, self.width, embedding_init=start, name="positions"
        ).embedding
        return x + positions[None, :steps].astype(x.dtype)


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a residual connection.

    Attributes:
      num_heads: attention heads.
      mlp_width: hidden units of the MLP.
      causal: True if a position sees itself and earlier ones, False if it sees all.
      dropout_rate: rate after attention and MLP.
      initializer: initial distribution of the dense layers.
      first_dropout: index of the block's first dropout layer.
    """

    num_heads: int
    mlp_width: int
    causal: bool
    dropout_rate: float
    initializer: Initializer
    first_dropout: int

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, steps, width] -> [batch, steps, width]."""
        width = x.shape[-1]
        y = LayerNorm(name="norm_attention")(x)
        y = dense(y, 3 * width, self.initializer, "qkv")
        y = self_attention(y, self.num_heads, self.causal)
        y = dense(y, width, self.initializer, "attention_output")
        x = x + dropout(y, self.dropout_rate, self.first_dropout, masks)

        y = LayerNorm(name="norm_mlp")(x)
        y = gelu(dense(y, self.mlp_width, self.initializer, "mlp_in"))
        y = dense(y, width, self.initializer, "mlp_out")
        return x + dropout(y, self.dropout_rate, self.first_dropout + 1, masks)

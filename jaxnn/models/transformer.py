"""Transformer with normalization before each part, in the order of GPT-2. Twin of
torch_ref/models/transformer.py."""

import flax.linen as nn
import jax

from jaxnn.activations import gelu
from jaxnn.dropout import MaskSource, dropout
from jaxnn.experiment.errors import UserError
from jaxnn.initializers import Initializer
from jaxnn.models.attention import self_attention
from jaxnn.models.normalization import LayerNorm


class Transformer(nn.Module):
    """Decoder (causal) or encoder: embedding and learned positions, blocks, a last norm
    and a Dense head.

      x = dropout(embed(inputs) + positions)
      each block: x += dropout(attention(norm(x)));  x += dropout(gelu(norm(x) W + b) V + c)
      outputs = norm(x) at each position, its mean over them (encoder) or its last one (causal), through the head

    Vaswani et al. 2017; Radford et al. 2019. Embeddings and positions start as N(0,
    0.02^2), GPT-2's way, kernels and biases as the initializer says, norms at scale 1
    and bias 0. Dropout layers are counted from 0 in the order in which they are met:
    the embedding's, then two a block.

    Attributes:
      num_tokens: vocabulary of token inputs; 0: real inputs, through a Dense layer.
      num_outputs: width of the head.
      num_layers: blocks.
      width: features of a position.
      num_heads: attention heads; divides width.
      mlp_width: hidden units of a block's MLP.
      max_length: rows of the table of positions.
      causal: a position sees itself and earlier ones; else all.
      per_step: an output at each position instead of one for all.
      dropout_rate: of every dropout layer.
      initializer: how the Dense layers start.
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
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
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
        return dense(self.num_outputs, x, self.initializer, "output")

    def _embed(self, x: jax.Array) -> jax.Array:
        steps, start = x.shape[1], nn.initializers.normal(0.02)
        if steps > self.max_length:
            raise UserError(
                f"--sequence_length: {steps} steps, but the model has "
                f"{self.max_length} positions; shorten the sequences or train a model "
                "of that length"
            )
        if self.num_tokens:
            x = nn.Embed(
                self.num_tokens, self.width, embedding_init=start, name="embedding"
            )(x)
        else:
            x = dense(
                self.width, x.reshape(*x.shape[:2], -1), self.initializer, "embedding"
            )
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
      causal: a position sees itself and earlier ones; else all.
      dropout_rate: after attention and MLP.
      initializer: how the Dense layers start.
      first_dropout: index of its first dropout layer.
    """

    num_heads: int
    mlp_width: int
    causal: bool
    dropout_rate: float
    initializer: Initializer
    first_dropout: int

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, steps, width] -> the same."""
        width, start = x.shape[-1], self.initializer
        qkv = dense(3 * width, LayerNorm(name="norm_attention")(x), start, "qkv")
        y = dense(
            width,
            self_attention(qkv, self.num_heads, self.causal),
            start,
            "attention_output",
        )
        x = x + dropout(y, self.dropout_rate, self.first_dropout, masks)
        y = gelu(dense(self.mlp_width, LayerNorm(name="norm_mlp")(x), start, "mlp_in"))
        y = dense(width, y, start, "mlp_out")
        return x + dropout(y, self.dropout_rate, self.first_dropout + 1, masks)


def dense(size: int, x: jax.Array, start: Initializer, name: str) -> jax.Array:
    """A Dense layer of the module that calls it."""
    return nn.Dense(
        size, kernel_init=start.kernel, bias_init=start.bias(x.shape[-1]), name=name
    )(x)

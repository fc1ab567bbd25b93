"""Transformer with normalization first, in the order of GPT-2.

Twin of jaxnn/models/transformer.py.
"""

from torch import Tensor as Array
from torch import nn

from jaxnn.experiment.errors import UserError
from torch_ref.activations import gelu
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.attention import self_attention
from torch_ref.models.normalization import LayerNorm


class Transformer(nn.Module):
    """Decoder (causal) or encoder with learned positions and a dense head.

      x = dropout(embed(inputs) + positions)
      each block: x += dropout(attention(norm(x)))
                  x += dropout(gelu(norm(x) W + b) V + c)
      outputs = head(norm(x)) at each position, or of one vector for all: the last
                position's (causal), or the mean over positions (encoder)

    Vaswani et al. 2017; Radford et al. 2019. Dropout layers are counted from 0 in the
    order in which they are applied: the embedding's, then two for each block.

    Args:
      num_inputs: numbers of a step of real inputs.
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
        self.num_tokens = num_tokens
        self.num_layers = num_layers
        self.max_length = max_length
        self.causal = causal
        self.per_step = per_step
        self.dropout_rate = dropout_rate
        if num_tokens:
            self.embedding = _embedding(num_tokens, width)
        else:
            self.embedding = nn.Linear(num_inputs, width)
        self.positions = _embedding(max_length, width)
        # flax's names, which params_io maps; a ModuleList would number its modules.
        for block in range(num_layers):
            inner = Block(
                width,
                num_heads,
                mlp_width,
                causal,
                dropout_rate,
                first_dropout=1 + 2 * block,
            )
            self.add_module(f"block_{block}", inner)
        self.norm_output = LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
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
            x = self.get_submodule(f"block_{block}")(x, masks)
        x = self.norm_output(x)
        if not self.per_step:
            x = x[:, -1] if self.causal else x.mean(1)
        return self.output(x)

    def embed(self, x: Array) -> Array:
        """Embeds inputs and adds the positions: [batch, steps, ...] -> [..., width]."""
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
      causal: True if a position sees itself and earlier ones, False if it sees all.
      dropout_rate: rate after attention and MLP.
      first_dropout: index of the block's first dropout layer.
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
        self.num_heads = num_heads
        self.causal = causal
        self.dropout_rate = dropout_rate
        self.first_dropout = first_dropout
        self.norm_attention = LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.norm_mlp = LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp_width)
        self.mlp_out = nn.Linear(mlp_width, width)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, steps, width] -> [batch, steps, width]."""
        y = self.norm_attention(x)
        y = self.qkv(y)
        y = self_attention(y, self.num_heads, self.causal)
        y = self.attention_output(y)
        x = x + dropout(y, self.dropout_rate, self.first_dropout, masks)

        y = self.norm_mlp(x)
        y = gelu(self.mlp_in(y))
        y = self.mlp_out(y)
        return x + dropout(y, self.dropout_rate, self.first_dropout + 1, masks)


def _embedding(num: int, width: int) -> nn.Embedding:
    layer = nn.Embedding(num, width)
    # GPT-2's way, whatever the initializer of the dense layers.
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer

"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997), GRU (Cho et al. 2014).

Twin of jaxnn/models/rnn.py. The layers are torch's own, so that its kernels compute
them; one module each, so that our dropout comes between them.
"""

from collections.abc import Callable

import torch
from torch import Tensor as Array
from torch import nn

from torch_ref.dropout import MaskSource, dropout
from torch_ref.initializers import Initializer, torch_default


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each, and a dense head.

    Tokens are embedded in hidden_sizes[0] features.

    Args:
      num_inputs: features of a step of real inputs.
      cell: "rnn" (tanh), "lstm" or "gru".
      hidden_sizes: units of the layers, `layer_0` and so on.
      num_outputs: width of the head.
      num_tokens: size of the vocabulary, or 0 if the inputs are real numbers.
      per_step: True for an output at each step, False for one after the last.
      dropout_rates: one rate per layer, or empty.
    """

    def __init__(
        self,
        num_inputs: int,
        cell: str,
        hidden_sizes: tuple[int, ...],
        num_outputs: int,
        num_tokens: int,
        per_step: bool,
        dropout_rates: tuple[float, ...],
    ):
        super().__init__()
        self.hidden_sizes = hidden_sizes
        self.num_tokens = num_tokens
        self.per_step = per_step
        self.dropout_rates = dropout_rates
        if num_tokens:
            # N(0, 1) is torch's default.
            self.embedding = nn.Embedding(num_tokens, hidden_sizes[0])
        widths = (hidden_sizes[0] if num_tokens else num_inputs, *hidden_sizes)
        for layer, size in enumerate(hidden_sizes):
            inner = CELLS[cell](widths[layer], size, batch_first=True)
            self.add_module(f"layer_{layer}", inner)
        self.output = nn.Linear(hidden_sizes[-1], num_outputs)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """Outputs of each step, or of the last.

        Args:
          x: [batch, steps] tokens or [batch, steps, features].
          masks: training context, or None outside training.

        Returns:
          [batch, steps, num_outputs] if per_step, else [batch, num_outputs].
        """
        if self.num_tokens:
            x = self.embedding(x)
        for layer, _ in enumerate(self.hidden_sizes):
            x, _ = self.get_submodule(f"layer_{layer}")(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
        x = x if self.per_step else x[:, -1]
        return self.output(x)


def initialize(layer: nn.RNNBase, initializer: Initializer) -> None:
    """Draws the parameters of one recurrent layer, each gate's matrix on its own."""
    # Under torch_default all four tensors start as U(-1/sqrt(size), 1/sqrt(size)), as
    # in torch: the input kernel by the hidden size too, not by its own fan-in.
    bias = initializer.bias(layer.hidden_size)
    of_input = bias if initializer == torch_default else initializer.kernel
    with torch.no_grad():
        # Drawn at once, the fans would count all gates as outputs.
        for gate in layer.get_parameter("weight_ih_l0").split(layer.hidden_size):
            of_input(gate)
        for gate in layer.get_parameter("weight_hh_l0").split(layer.hidden_size):
            initializer.kernel(gate)
        bias(layer.get_parameter("bias_ih_l0"))
        bias(layer.get_parameter("bias_hh_l0"))


CELLS: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn": nn.RNN,
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}

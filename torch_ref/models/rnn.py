"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997), GRU (Cho et al. 2014). Twin of
jaxnn/models/rnn.py."""

import torch
from torch import nn

from torch_ref.dropout import MaskSource, dropout
from torch_ref.initializers import Initializer, torch_default


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each, and a Linear head on the last step or
    on each one.

    Tokens are embedded in hidden_sizes[0] features, which start as N(0, 1), torch's
    default. The layers are torch's own, one module each, so that its kernels compute
    them.

    Args:
      num_inputs: features of a step of real inputs.
      cell: "rnn" (tanh), "lstm" or "gru".
      hidden_sizes: units of each layer.
      num_outputs: width of the head.
      num_tokens: vocabulary of token inputs; 0: real inputs.
      per_step: an output at each step instead of one after the last.
      dropout_rates: one per layer, or empty.
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
        self.num_layers, self.per_step, self.dropout_rates = (
            len(hidden_sizes),
            per_step,
            dropout_rates,
        )
        self.embedding = (
            nn.Embedding(num_tokens, hidden_sizes[0]) if num_tokens else None
        )
        widths = (hidden_sizes[0] if num_tokens else num_inputs, *hidden_sizes)
        for layer, size in enumerate(hidden_sizes):
            self.add_module(
                f"layer_{layer}", CELLS[cell](widths[layer], size, batch_first=True)
            )
        self.output = nn.Linear(hidden_sizes[-1], num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, steps, features] or [batch, steps] tokens -> [batch, num_outputs] or
        [batch, steps, num_outputs]."""
        if self.embedding:
            x = self.embedding(x)
        for layer in range(self.num_layers):
            x, _ = self.get_submodule(f"layer_{layer}")(x)
            x = dropout(
                x,
                self.dropout_rates[layer] if self.dropout_rates else 0.0,
                layer,
                masks,
            )
        return self.output(x if self.per_step else x[:, -1])


def initialize(layer: nn.RNNBase, start: Initializer) -> None:
    """Starts one recurrent layer: each gate's matrix as the initializer draws it, on
    its own.

    Under torch_default all four tensors start as U(-1/sqrt(hidden), 1/sqrt(hidden)), as
    in torch.
    """
    bias = start.bias(layer.hidden_size)
    of_input = bias if start == torch_default else start.kernel
    with torch.no_grad():
        for kernel, weight in (
            (of_input, layer.weight_ih_l0),
            (start.kernel, layer.weight_hh_l0),
        ):
            for gate in weight.split(layer.hidden_size):
                kernel(gate)
        bias(layer.bias_ih_l0)
        bias(layer.bias_hh_l0)


CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}

"""Multi-layer perceptron. Twin of jaxnn/models/mlp.py."""

import torch
from torch import nn

from torch_ref.activations import Activation
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.normalization import normalize


class MLP(nn.Module):
    """a_l = dropout(activation(normalize(a_{l-1} W_l + b_l))) for each hidden layer,
    then one Linear layer.

    Args:
      num_inputs: width of the input.
      hidden_sizes: units of each hidden layer.
      num_outputs: width of the output.
      activation: of the hidden layers.
      dropout_rates: one per hidden layer, or empty.
      normalization: "none", "batch" or "layer".
    """

    def __init__(
        self,
        num_inputs: int,
        hidden_sizes: tuple[int, ...],
        num_outputs: int,
        activation: Activation,
        dropout_rates: tuple[float, ...],
        normalization: str = "none",
    ):
        super().__init__()
        self.num_hidden, self.activation, self.dropout_rates = (
            len(hidden_sizes),
            activation,
            dropout_rates,
        )
        for layer, (fan_in, size) in enumerate(
            zip((num_inputs, *hidden_sizes), hidden_sizes)
        ):
            self.add_module(f"hidden_{layer}", nn.Linear(fan_in, size))
            self.add_module(f"norm_{layer}", normalize(normalization, size))
        self.output = nn.Linear(hidden_sizes[-1], num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened, without `masks`
        nothing is dropped."""
        x = x.flatten(1)
        for layer in range(self.num_hidden):
            x = self.get_submodule(f"hidden_{layer}")(x)
            x = self.activation(self.get_submodule(f"norm_{layer}")(x, masks))
            x = dropout(
                x,
                self.dropout_rates[layer] if self.dropout_rates else 0.0,
                layer,
                masks,
            )
        return self.output(x)

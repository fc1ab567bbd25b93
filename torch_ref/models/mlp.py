"""Multi-layer perceptron. Twin of jaxnn/models/mlp.py."""

from torch import Tensor as Array
from torch import nn

from torch_ref.activations import Activation
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.normalization import norm_layer


class MLP(nn.Module):
    """Hidden layers dropout(activation(normalize(x W + b))), then one dense layer.

    With `residual` a hidden layer that is as wide as its input x adds x to its result
    (He et al. 2016, arXiv:1512.03385).

    Args:
      num_inputs: numbers of an example.
      hidden_sizes: units of the hidden layers, `hidden_0` and so on; their
        normalizations are `norm_0` and so on.
      num_outputs: width of the output.
      activation: activation of the hidden layers.
      dropout_rates: one rate per hidden layer, or empty.
      normalization: "none", "batch" or "layer".
      use_bias: False for dense layers without biases.
      residual: True to add.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden_sizes: tuple[int, ...],
        num_outputs: int,
        activation: Activation,
        dropout_rates: tuple[float, ...],
        normalization: str = "none",
        use_bias: bool = True,
        residual: bool = False,
    ):
        super().__init__()
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.dropout_rates = dropout_rates
        self.residual = residual
        # flax's names, which params_io maps; a ModuleList would number its modules.
        widths = (num_inputs, *hidden_sizes)
        for layer, size in enumerate(hidden_sizes):
            dense = nn.Linear(widths[layer], size, use_bias)
            self.add_module(f"hidden_{layer}", dense)
            self.add_module(f"norm_{layer}", norm_layer(normalization, size))
        self.output = nn.Linear(hidden_sizes[-1], num_outputs, use_bias)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened.

        Args:
          x: inputs.
          masks: training context, or None outside training.
        """
        x = x.flatten(1)
        for layer, _ in enumerate(self.hidden_sizes):
            given = x
            x = self.get_submodule(f"hidden_{layer}")(x)
            x = self.get_submodule(f"norm_{layer}")(x, masks)
            x = self.activation(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
            x = x + given if self.residual and x.shape == given.shape else x
        return self.output(x)

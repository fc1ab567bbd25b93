"""Multi-layer perceptron. Twin of torch_ref/models/mlp.py."""

import flax.linen as nn
from jax import Array

from jaxnn.activations import Activation
from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Initializer
from jaxnn.models.dense import dense
from jaxnn.models.normalization import norm_layer


class MLP(nn.Module):
    """Hidden layers dropout(activation(normalize(x W + b))), then one dense layer.

    With `residual` a hidden layer that is as wide as its input x adds x to its result
    (He et al. 2016, arXiv:1512.03385).

    Attributes:
      hidden_sizes: units of the hidden layers, `hidden_0` and so on; their
        normalizations are `norm_0` and so on.
      num_outputs: width of the output.
      activation: activation of the hidden layers.
      dropout_rates: one rate per hidden layer, or empty.
      initializer: initial distribution of the dense layers.
      normalization: "none", "batch" or "layer".
      use_bias: False for dense layers without biases.
      residual: True to add.
    """

    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: Activation
    dropout_rates: tuple[float, ...]
    initializer: Initializer
    normalization: str = "none"
    use_bias: bool = True
    residual: bool = False

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened.

        Args:
          x: inputs.
          masks: training context, or None outside training.
        """
        x = x.reshape(x.shape[0], -1)
        for layer, size in enumerate(self.hidden_sizes):
            given = x
            name = f"hidden_{layer}"
            x = dense(x, size, self.initializer, name, self.use_bias)
            x = norm_layer(self.normalization, f"norm_{layer}")(x, masks)
            x = self.activation(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
            x = x + given if self.residual and x.shape == given.shape else x
        return dense(x, self.num_outputs, self.initializer, "output", self.use_bias)

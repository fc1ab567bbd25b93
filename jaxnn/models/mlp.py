"""Multi-layer perceptron. Twin of torch_ref/models/mlp.py."""

import flax.linen as nn
import jax

from jaxnn.activations import Activation
from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Initializer
from jaxnn.models import normalization


class MLP(nn.Module):
    """a_l = dropout(activation(normalize(a_{l-1} W_l + b_l))) for each hidden layer,
    then one Dense layer.

    Attributes:
      hidden_sizes: units of each hidden layer.
      num_outputs: width of the output.
      activation: of the hidden layers.
      dropout_rates: one per hidden layer, or empty.
      initializer: how the layers start.
      normalization: "none", "batch" or "layer".
    """

    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: Activation
    dropout_rates: tuple[float, ...]
    initializer: Initializer
    normalization: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened, without `masks`
        nothing is dropped."""
        x = x.reshape(x.shape[0], -1)
        for layer, size in enumerate(self.hidden_sizes):
            x = self._dense(size, x, f"hidden_{layer}")
            x = self.activation(
                normalization.normalize(self.normalization, f"norm_{layer}", x, masks)
            )
            x = dropout(
                x,
                self.dropout_rates[layer] if self.dropout_rates else 0.0,
                layer,
                masks,
            )
        return self._dense(self.num_outputs, x, "output")

    def _dense(self, size: int, x: jax.Array, name: str) -> jax.Array:
        start = self.initializer
        return nn.Dense(
            size, kernel_init=start.kernel, bias_init=start.bias(x.shape[-1]), name=name
        )(x)

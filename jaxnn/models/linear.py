"""One Dense layer: linear and logistic regression, the perceptron. Twin of
torch_ref/models/linear.py."""

import flax.linen as nn
import jax

from jaxnn.dropout import MaskSource
from jaxnn.initializers import Initializer


class Linear(nn.Module):
    """y = x W + b.

    Attributes:
      num_outputs: width of y.
      initializer: how the layer starts.
    """

    num_outputs: int
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened, `masks` is not
        used."""
        del masks
        x = x.reshape(x.shape[0], -1)
        start = self.initializer
        return nn.Dense(
            self.num_outputs,
            kernel_init=start.kernel,
            bias_init=start.bias(x.shape[-1]),
            name="output",
        )(x)

"""One dense layer: linear and logistic regression, the perceptron.

Twin of torch_ref/models/linear.py.
"""

import flax.linen as nn
from jax import Array

from jaxnn.dropout import MaskSource
from jaxnn.initializers import Initializer
from jaxnn.models.dense import dense


class Linear(nn.Module):
    """y = x W + b.

    Attributes:
      num_outputs: width of y.
      initializer: initial distribution of W and b.
      use_bias: False for y = x W.
    """

    num_outputs: int
    initializer: Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ...] -> [batch, num_outputs]; examples are flattened."""
        del masks
        x = x.reshape(x.shape[0], -1)
        return dense(x, self.num_outputs, self.initializer, "output", self.use_bias)

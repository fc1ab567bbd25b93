"""Convolutional network. Twin of torch_ref/models/cnn.py."""

import flax.linen as nn
import jax

from jaxnn.activations import Activation
from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Initializer
from jaxnn.models import normalization
from jaxnn.models.convolution import Conv, average_pool, max_pool


class CNN(nn.Module):
    """pool(activation(normalize(conv(x)))) for each channel count, then an MLP of the
    flattened image.

    A pooling halves height and width (LeCun et al. 1998) and is left out once one of
    them is 1.

    Attributes:
      channels: of each convolution, `conv_0` and so on; its normalization is `norm_0`.
      kernel_size: height and width of the kernels, odd.
      pool: "max" or "average".
      hidden_sizes: units of each hidden layer, `hidden_0` and so on; its normalization
        is `hidden_norm_0`.
      num_outputs: width of the output.
      activation: of convolutions and hidden layers.
      normalization: "none", "batch" or "layer".
      dropout_rates: one per hidden layer, or empty.
      initializer: how the layers start.
      algorithm: of the convolutions.
    """

    channels: tuple[int, ...]
    kernel_size: int
    pool: str
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: Activation
    normalization: str
    dropout_rates: tuple[float, ...]
    initializer: Initializer
    algorithm: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, height, width, channels] -> [batch, num_outputs]; without `masks`
        nothing is dropped."""
        for layer, channels in enumerate(self.channels):
            x = Conv(
                channels,
                self.kernel_size,
                self.initializer,
                algorithm=self.algorithm,
                name=f"conv_{layer}",
            )(x)
            x = self.activation(
                normalization.normalize(self.normalization, f"norm_{layer}", x, masks)
            )
            x = POOLS[self.pool](x, 2) if min(x.shape[1:3]) > 1 else x
        x = x.reshape(x.shape[0], -1)
        for layer, size in enumerate(self.hidden_sizes):
            x = self._dense(size, x, f"hidden_{layer}")
            x = self.activation(
                normalization.normalize(
                    self.normalization, f"hidden_norm_{layer}", x, masks
                )
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


POOLS = {"max": max_pool, "average": average_pool}

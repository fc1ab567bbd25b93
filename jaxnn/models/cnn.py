"""Convolutional network. Twin of torch_ref/models/cnn.py."""

import flax.linen as nn
from jax import Array

from jaxnn.activations import Activation
from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Initializer
from jaxnn.models.convolution import Conv, average_pool, max_pool
from jaxnn.models.dense import dense
from jaxnn.models.normalization import norm_layer


class CNN(nn.Module):
    """Layers pool(activation(normalize(conv(x)))), then an MLP of the flattened image.

    Attributes:
      channels: channels of the convolutions, `conv_0` and so on; their normalizations
        are `norm_0` and so on.
      kernel_size: height and width of the kernels, odd.
      pool: "max" or "average".
      hidden_sizes: units of the hidden layers, `hidden_0` and so on; their
        normalizations are `hidden_norm_0` and so on.
      num_outputs: width of the output.
      activation: activation of convolutions and hidden layers.
      normalization: "none", "batch" or "layer".
      dropout_rates: one rate per hidden layer, or empty.
      initializer: initial distribution of convolutions and dense layers.
      algorithm: algorithm of the convolutions; see `convolution.conv`.
      use_bias: False for convolutions and dense layers without biases.
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
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, height, width, channels] -> [batch, num_outputs].

        Args:
          x: images.
          masks: training context, or None outside training.
        """
        for layer, channels in enumerate(self.channels):
            x = Conv(
                channels,
                self.kernel_size,
                self.initializer,
                use_bias=self.use_bias,
                algorithm=self.algorithm,
                name=f"conv_{layer}",
            )(x)
            x = norm_layer(self.normalization, f"norm_{layer}")(x, masks)
            x = self.activation(x)
            # A pooling halves height and width (LeCun et al. 1998), until one is 1.
            x = POOLS[self.pool](x, 2) if min(x.shape[1:3]) > 1 else x

        x = x.reshape(x.shape[0], -1)
        for layer, size in enumerate(self.hidden_sizes):
            name = f"hidden_{layer}"
            x = dense(x, size, self.initializer, name, self.use_bias)
            x = norm_layer(self.normalization, f"hidden_norm_{layer}")(x, masks)
            x = self.activation(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
        return dense(x, self.num_outputs, self.initializer, "output", self.use_bias)


POOLS = {"max": max_pool, "average": average_pool}

"""Convolutional network. Twin of jaxnn/models/cnn.py."""

from torch import Tensor as Array
from torch import nn

from torch_ref.activations import Activation
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.convolution import Conv, average_pool, max_pool
from torch_ref.models.normalization import norm_layer


class CNN(nn.Module):
    """Layers pool(activation(normalize(conv(x)))), then an MLP of the flattened image.

    Args:
      image_shape: (height, width, channels) of the input.
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
      use_bias: False for convolutions and dense layers without biases.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        channels: tuple[int, ...],
        kernel_size: int,
        pool: str,
        hidden_sizes: tuple[int, ...],
        num_outputs: int,
        activation: Activation,
        normalization: str,
        dropout_rates: tuple[float, ...],
        use_bias: bool = True,
    ):
        super().__init__()
        self.channels = channels
        self.pool = pool
        self.hidden_sizes = hidden_sizes
        self.activation = activation
        self.dropout_rates = dropout_rates

        # flax's names, which params_io maps; a ModuleList would number its modules.
        depths = (image_shape[-1], *channels)
        for layer, size in enumerate(channels):
            conv = Conv(depths[layer], size, kernel_size, use_bias=use_bias)
            self.add_module(f"conv_{layer}", conv)
            self.add_module(f"norm_{layer}", norm_layer(normalization, size))

        widths = (_flattened_size(image_shape, channels), *hidden_sizes)
        for layer, size in enumerate(hidden_sizes):
            dense = nn.Linear(widths[layer], size, use_bias)
            self.add_module(f"hidden_{layer}", dense)
            self.add_module(f"hidden_norm_{layer}", norm_layer(normalization, size))
        self.output = nn.Linear(widths[-1], num_outputs, use_bias)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, height, width, channels] -> [batch, num_outputs].

        Args:
          x: images.
          masks: training context, or None outside training.
        """
        for layer, _ in enumerate(self.channels):
            x = self.get_submodule(f"conv_{layer}")(x)
            x = self.get_submodule(f"norm_{layer}")(x, masks)
            x = self.activation(x)
            # A pooling halves height and width (LeCun et al. 1998), until one is 1.
            x = POOLS[self.pool](x, 2) if min(x.shape[1:3]) > 1 else x

        x = x.flatten(1)
        for layer, _ in enumerate(self.hidden_sizes):
            x = self.get_submodule(f"hidden_{layer}")(x)
            x = self.get_submodule(f"hidden_norm_{layer}")(x, masks)
            x = self.activation(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
        return self.output(x)


def _flattened_size(image_shape: tuple[int, ...], channels: tuple[int, ...]) -> int:
    """Returns the numbers of an image after the last convolution and pooling."""
    height, width, _ = image_shape
    for _ in channels:
        if min(height, width) > 1:
            height //= 2
            width //= 2
    depth = (*image_shape, *channels)[-1]
    return height * width * depth


POOLS = {"max": max_pool, "average": average_pool}

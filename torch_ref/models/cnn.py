"""Convolutional network. Twin of jaxnn/models/cnn.py."""

import math

import torch
from torch import nn

from torch_ref.activations import Activation
from torch_ref.dropout import MaskSource, dropout
from torch_ref.models.convolution import Conv, average_pool, max_pool
from torch_ref.models.normalization import normalize


class CNN(nn.Module):
    """pool(activation(normalize(conv(x)))) for each channel count, then an MLP of the
    flattened image.

    A pooling halves height and width (LeCun et al. 1998) and is left out once one of
    them is 1.

    Args:
      image_shape: (height, width, channels) of the input.
      channels: of each convolution, `conv_0` and so on; its normalization is `norm_0`.
      kernel_size: height and width of the kernels, odd.
      pool: "max" or "average".
      hidden_sizes: units of each hidden layer, `hidden_0` and so on; its normalization
        is `hidden_norm_0`.
      num_outputs: width of the output.
      activation: of convolutions and hidden layers.
      normalization: "none", "batch" or "layer".
      dropout_rates: one per hidden layer, or empty.
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
    ):
        super().__init__()
        self.num_convolutions, self.num_hidden, self.pool = (
            len(channels),
            len(hidden_sizes),
            POOLS[pool],
        )
        self.activation, self.dropout_rates = activation, dropout_rates
        for layer, (fan_in, size) in enumerate(
            zip((image_shape[-1], *channels), channels)
        ):
            self.add_module(f"conv_{layer}", Conv(fan_in, size, kernel_size))
            self.add_module(f"norm_{layer}", normalize(normalization, size))
        widths = (_flattened(image_shape, channels), *hidden_sizes)
        for layer, (fan_in, size) in enumerate(zip(widths, hidden_sizes)):
            self.add_module(f"hidden_{layer}", nn.Linear(fan_in, size))
            self.add_module(f"hidden_norm_{layer}", normalize(normalization, size))
        self.output = nn.Linear(widths[-1], num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, height, width, channels] -> [batch, num_outputs]; without `masks`
        nothing is dropped."""
        for layer in range(self.num_convolutions):
            x = self.get_submodule(f"conv_{layer}")(x)
            x = self.activation(self.get_submodule(f"norm_{layer}")(x, masks))
            x = self.pool(x, 2) if min(x.shape[1:3]) > 1 else x
        x = x.flatten(1)
        for layer in range(self.num_hidden):
            x = self.get_submodule(f"hidden_{layer}")(x)
            x = self.activation(self.get_submodule(f"hidden_norm_{layer}")(x, masks))
            x = dropout(
                x,
                self.dropout_rates[layer] if self.dropout_rates else 0.0,
                layer,
                masks,
            )
        return self.output(x)


def _flattened(image_shape: tuple[int, ...], channels: tuple[int, ...]) -> int:
    """Numbers of the image after the last pooling; `channels` of each convolution."""
    height, width, _ = image_shape
    for _ in channels:
        height, width = (
            (height // 2, width // 2) if min(height, width) > 1 else (height, width)
        )
    return math.prod((height, width, (*image_shape, *channels)[-1]))


POOLS = {"max": max_pool, "average": average_pool}

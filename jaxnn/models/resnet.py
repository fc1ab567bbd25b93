"""Residual networks (He et al. 2016). Twin of torch_ref/models/resnet.py."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxnn.dropout import MaskSource
from jaxnn.initializers import Initializer
from jaxnn.models.convolution import Conv, global_average_pool, max_pool
from jaxnn.models.dense import dense
from jaxnn.models.normalization import BatchNorm


class Layout(NamedTuple):
    """Architecture of one depth.

    Attributes:
      stem_size: kernel size of the first convolution.
      stem_stride: its stride.
      stem_pool: True if a 3x3 max pooling of stride 2 follows it.
      blocks: residual blocks of each stage; every stage but the first halves height and
        width.
      channels: channels of the stem and the first stage; each stage doubles them.
      bottleneck: True for blocks of three convolutions (1x1, 3x3, 1x1, four times the
        channels), False for blocks of two (3x3).
      projection: True if shortcuts that change shape are 1x1 convolutions (option B of
        the paper), False if they take every second pixel and append zero channels
        (option A).
    """

    stem_size: int
    stem_stride: int
    stem_pool: bool
    blocks: tuple[int, ...]
    channels: int
    bottleneck: bool
    projection: bool


class ResNet(nn.Module):
    """Stem, stages of residual blocks, average over all positions, one dense layer.

    Depths 20 and 32 are the paper's for CIFAR; 18 and 50 are those for ImageNet, the
    stride of a bottleneck in its 3x3 convolution as in torchvision ("v1.5").

    Attributes:
      depth: 18, 20, 32 or 50.
      num_outputs: width of the output.
      initializer: initial distribution of convolutions and dense layer.
      algorithm: algorithm of the convolutions; see `convolution.conv`.
    """

    depth: int
    num_outputs: int
    initializer: Initializer
    algorithm: str = "auto"

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, height, width, channels] -> [batch, num_outputs].

        Args:
          x: images.
          masks: training context, or None to use the running statistics.
        """
        layout = LAYOUTS[self.depth]
        x = Conv(
            layout.channels,
            layout.stem_size,
            self.initializer,
            layout.stem_stride,
            use_bias=False,
            algorithm=self.algorithm,
            name="stem_conv",
        )(x)
        x = jax.nn.relu(BatchNorm(name="stem_norm")(x, masks))
        if layout.stem_pool:
            x = max_pool(x, 3, stride=2, padding=1)

        for stage, count in enumerate(layout.blocks):
            for index in range(count):
                x = Block(
                    layout.channels * 2**stage,
                    # The first block of a stage halves the image, except in the first.
                    2 if stage and not index else 1,
                    layout.bottleneck,
                    layout.projection,
                    self.initializer,
                    self.algorithm,
                    name=f"stage_{stage}_block_{index}",
                )(x, masks)
        x = global_average_pool(x)
        return dense(x, self.num_outputs, self.initializer, "output")


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), F being `conv_i` and `norm_i` in turn, ReLU in between.

    Attributes:
      channels: channels of the 3x3 convolutions.
      stride: stride of the first 3x3 convolution and the shortcut.
      bottleneck: see `Layout`.
      projection: see `Layout`.
      initializer: initial distribution of the convolutions.
      algorithm: algorithm of the convolutions.
    """

    channels: int
    stride: int
    bottleneck: bool
    projection: bool
    initializer: Initializer
    algorithm: str

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None) -> Array:
        """[batch, height, width, in] -> [batch, height', width', out].

        height' = ceil(height / stride), and likewise the width.
        """
        layers = block_layers(self.channels, self.stride, self.bottleneck)
        y = x
        for layer, (channels, size, stride) in enumerate(layers):
            y = jax.nn.relu(y) if layer else y
            y = self._convolve(y, channels, size, stride, f"conv_{layer}")
            y = BatchNorm(name=f"norm_{layer}")(y, masks)
        return jax.nn.relu(y + self._shortcut(x, y.shape[-1], masks))

    def _shortcut(self, x: Array, channels: int, masks: MaskSource | None) -> Array:
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        if self.projection:
            x = self._convolve(x, channels, 1, self.stride, "shortcut_conv")
            return BatchNorm(name="shortcut_norm")(x, masks)
        # Option A, which has no parameters.
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))

    def _convolve(
        self, x: Array, channels: int, size: int, stride: int, name: str
    ) -> Array:
        # A normalization follows every convolution, so none has a bias.
        return Conv(
            channels,
            size,
            self.initializer,
            stride,
            use_bias=False,
            algorithm=self.algorithm,
            name=name,
        )(x)


def block_layers(
    channels: int, stride: int, bottleneck: bool
) -> list[tuple[int, int, int]]:
    """Returns (channels, kernel size, stride) of the convolutions of a block."""
    if bottleneck:
        return [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)]
    return [(channels, 3, stride), (channels, 3, 1)]


def _cifar(blocks: int) -> Layout:
    return Layout(3, 1, False, (blocks,) * 3, 16, bottleneck=False, projection=False)


def _imagenet(blocks: tuple[int, ...], bottleneck: bool) -> Layout:
    return Layout(7, 2, True, blocks, 64, bottleneck, projection=True)


# Depth counts convolutions and the dense layer, shortcuts left out: 20 = 1 + 3*3*2 + 1.
LAYOUTS: dict[int, Layout] = {
    20: _cifar(3),
    32: _cifar(5),
    18: _imagenet((2, 2, 2, 2), bottleneck=False),
    50: _imagenet((3, 4, 6, 3), bottleneck=True),
}

"""Residual networks (He et al. 2016). Twin of torch_ref/models/resnet.py."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn.dropout import MaskSource
from jaxnn.initializers import Initializer
from jaxnn.models.convolution import Conv, global_average_pool, max_pool
from jaxnn.models.normalization import BatchNorm


class Layout(NamedTuple):
    """What one depth is built of.

    Attributes:
      stem_size, stem_stride: of the first convolution.
      stem_pool: whether a 3x3 max pooling of stride 2 follows it.
      blocks: residual blocks of each stage; every stage but the first halves height and
        width.
      channels: of the first stage and the stem; each stage doubles them.
      bottleneck: blocks of three convolutions (1x1, 3x3, 1x1, four times the channels)
        instead of two 3x3.
      projection: shortcuts that change shape are 1x1 convolutions (option B of the
        paper) instead of every second pixel with zero channels appended (option A).
    """

    stem_size: int
    stem_stride: int
    stem_pool: bool
    blocks: tuple[int, ...]
    channels: int
    bottleneck: bool
    projection: bool


class ResNet(nn.Module):
    """Stem, stages of residual blocks, average over all positions, one Dense layer
    `output`.

    Depths 20 and 32 are the paper's for CIFAR; 18 and 50 are those for ImageNet, the
    stride of a bottleneck in its 3x3 convolution as in torchvision ("v1.5").

    Attributes:
      depth: 18, 20, 32 or 50.
      num_outputs: width of the output.
      initializer: how the layers start.
      algorithm: of the convolutions.
    """

    depth: int
    num_outputs: int
    initializer: Initializer
    algorithm: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, height, width, channels] -> [batch, num_outputs]; without `masks` by
        the running statistics."""
        layout, start = LAYOUTS[self.depth], self.initializer
        x = Conv(
            layout.channels,
            layout.stem_size,
            start,
            layout.stem_stride,
            False,
            self.algorithm,
            name="stem_conv",
        )(x)
        x = jax.nn.relu(BatchNorm(name="stem_norm")(x, masks))
        x = max_pool(x, 3, stride=2, padding=1) if layout.stem_pool else x
        for stage, count in enumerate(layout.blocks):
            for index in range(count):
                x = Block(
                    layout.channels * 2**stage,
                    2 if stage and not index else 1,
                    layout.bottleneck,
                    layout.projection,
                    start,
                    self.algorithm,
                    name=f"stage_{stage}_block_{index}",
                )(x, masks)
        x = global_average_pool(x)
        return nn.Dense(
            self.num_outputs,
            kernel_init=start.kernel,
            bias_init=start.bias(x.shape[-1]),
            name="output",
        )(x)


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), F being `conv_i` and `norm_i` in turn with ReLU between
    them.

    Attributes:
      channels: of the 3x3 convolutions.
      stride: of the first 3x3 convolution and the shortcut.
      bottleneck, projection: as in `Layout`.
      initializer: how the layers start.
      algorithm: of the convolutions.
    """

    channels: int
    stride: int
    bottleneck: bool
    projection: bool
    initializer: Initializer
    algorithm: str

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None) -> jax.Array:
        """[batch, height, width, in] -> [batch, ceil(height / stride), ceil(width /
        stride), out]."""
        wide = 4 * self.channels
        layers = (
            ((self.channels, 1, 1), (self.channels, 3, self.stride), (wide, 1, 1))
            if self.bottleneck
            else ((self.channels, 3, self.stride), (self.channels, 3, 1))
        )
        y = x
        for layer, (channels, size, stride) in enumerate(layers):
            y = self._convolve(
                jax.nn.relu(y) if layer else y, channels, size, stride, f"conv_{layer}"
            )
            y = BatchNorm(name=f"norm_{layer}")(y, masks)
        return jax.nn.relu(y + self._shortcut(x, y.shape[-1], masks))

    def _shortcut(
        self, x: jax.Array, channels: int, masks: MaskSource | None
    ) -> jax.Array:
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        if self.projection:
            x = self._convolve(x, channels, 1, self.stride, "shortcut_conv")
            return BatchNorm(name="shortcut_norm")(x, masks)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))

    def _convolve(
        self, x: jax.Array, channels: int, size: int, stride: int, name: str
    ) -> jax.Array:
        return Conv(
            channels, size, self.initializer, stride, False, self.algorithm, name=name
        )(x)


def _cifar(blocks: int) -> Layout:
    return Layout(3, 1, False, (blocks,) * 3, 16, bottleneck=False, projection=False)


def _imagenet(blocks: tuple[int, ...], bottleneck: bool) -> Layout:
    return Layout(7, 2, True, blocks, 64, bottleneck, projection=True)


LAYOUTS: dict[int, Layout] = {
    20: _cifar(3),
    32: _cifar(5),
    18: _imagenet((2, 2, 2, 2), bottleneck=False),
    50: _imagenet((3, 4, 6, 3), bottleneck=True),
}

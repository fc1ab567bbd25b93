"""Residual networks (He et al. 2016). Twin of jaxnn/models/resnet.py."""

from typing import NamedTuple

import torch
from torch import Tensor as Array
from torch import nn
from torch.nn import functional

from torch_ref.dropout import MaskSource
from torch_ref.models.convolution import Conv, global_average_pool, max_pool
from torch_ref.models.normalization import BatchNorm


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

    Args:
      num_inputs: channels of the input.
      depth: 18, 20, 32 or 50.
      num_outputs: width of the output.
    """

    def __init__(self, num_inputs: int, depth: int, num_outputs: int):
        super().__init__()
        layout = LAYOUTS[depth]
        self.layout = layout
        self.stem_conv = Conv(
            num_inputs,
            layout.channels,
            layout.stem_size,
            layout.stem_stride,
            use_bias=False,
        )
        self.stem_norm = BatchNorm(layout.channels)
        # flax's names, which params_io maps; a ModuleList would number its modules.
        width = layout.channels
        for stage, count in enumerate(layout.blocks):
            for index in range(count):
                block = Block(
                    width,
                    layout.channels * 2**stage,
                    # The first block of a stage halves the image, except in the first.
                    2 if stage and not index else 1,
                    layout.bottleneck,
                    layout.projection,
                )
                self.add_module(f"stage_{stage}_block_{index}", block)
                width = block.num_outputs
        self.output = nn.Linear(width, num_outputs)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, height, width, channels] -> [batch, num_outputs].

        Args:
          x: images.
          masks: training context, or None to use the running statistics.
        """
        layout = self.layout
        x = torch.relu(self.stem_norm(self.stem_conv(x), masks))
        if layout.stem_pool:
            x = max_pool(x, 3, stride=2, padding=1)

        for stage, count in enumerate(layout.blocks):
            for index in range(count):
                x = self.get_submodule(f"stage_{stage}_block_{index}")(x, masks)
        x = global_average_pool(x)
        return self.output(x)


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), F being `conv_i` and `norm_i` in turn, ReLU in between.

    Args:
      num_inputs: channels of the input.
      channels: channels of the 3x3 convolutions.
      stride: stride of the first 3x3 convolution and the shortcut.
      bottleneck: see `Layout`.
      projection: see `Layout`.
    """

    def __init__(
        self,
        num_inputs: int,
        channels: int,
        stride: int,
        bottleneck: bool,
        projection: bool,
    ):
        super().__init__()
        layers = block_layers(channels, stride, bottleneck)
        self.num_layers = len(layers)
        self.num_outputs = layers[-1][0]
        self.stride = stride

        # A normalization follows every convolution, so none has a bias.
        widths = (num_inputs, *(width for width, _, _ in layers))
        for layer, (width, size, layer_stride) in enumerate(layers):
            conv = Conv(widths[layer], width, size, layer_stride, use_bias=False)
            self.add_module(f"conv_{layer}", conv)
            self.add_module(f"norm_{layer}", BatchNorm(width))

        self.changes_shape = stride > 1 or num_inputs != self.num_outputs
        self.projects = projection and self.changes_shape
        if self.projects:
            self.shortcut_conv = Conv(
                num_inputs, self.num_outputs, 1, stride, use_bias=False
            )
            self.shortcut_norm = BatchNorm(self.num_outputs)

    def forward(self, x: Array, masks: MaskSource | None = None) -> Array:
        """[batch, height, width, in] -> [batch, height', width', out].

        height' = ceil(height / stride), and likewise the width.
        """
        y = x
        for layer in range(self.num_layers):
            y = torch.relu(y) if layer else y
            y = self.get_submodule(f"conv_{layer}")(y)
            y = self.get_submodule(f"norm_{layer}")(y, masks)
        return torch.relu(y + self._shortcut(x, masks))

    def _shortcut(self, x: Array, masks: MaskSource | None) -> Array:
        if not self.changes_shape:
            return x
        if self.projects:
            return self.shortcut_norm(self.shortcut_conv(x), masks)
        # Option A, which has no parameters.
        x = x[:, :: self.stride, :: self.stride]
        return functional.pad(x, (0, self.num_outputs - x.shape[-1]))


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

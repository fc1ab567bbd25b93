"""Residual networks (He et al. 2016). Twin of jaxnn/models/resnet.py."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from torch_ref.dropout import MaskSource
from torch_ref.models.convolution import Conv, global_average_pool, max_pool
from torch_ref.models.normalization import BatchNorm


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
    """Stem, stages of residual blocks, average over all positions, one Linear layer
    `output`.

    Depths 20 and 32 are the paper's for CIFAR; 18 and 50 are those for ImageNet, the
    stride of a bottleneck in its 3x3 convolution as in torchvision ("v1.5").

    Args:
      num_inputs: channels of the input.
      depth: 18, 20, 32 or 50.
      num_outputs: width of the output.
    """

    def __init__(self, num_inputs: int, depth: int, num_outputs: int):
        super().__init__()
        self.layout = layout = LAYOUTS[depth]
        self.stem_conv = Conv(
            num_inputs,
            layout.channels,
            layout.stem_size,
            layout.stem_stride,
            use_bias=False,
        )
        self.stem_norm = BatchNorm(layout.channels)
        width = layout.channels
        for stage, count in enumerate(layout.blocks):
            for index in range(count):
                block = Block(
                    width,
                    layout.channels * 2**stage,
                    2 if stage and not index else 1,
                    layout.bottleneck,
                    layout.projection,
                )
                self.add_module(f"stage_{stage}_block_{index}", block)
                width = block.num_outputs
        self.output = nn.Linear(width, num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, height, width, channels] -> [batch, num_outputs]; without `masks` by
        the running statistics."""
        x = torch.relu(self.stem_norm(self.stem_conv(x), masks))
        x = max_pool(x, 3, stride=2, padding=1) if self.layout.stem_pool else x
        for stage, count in enumerate(self.layout.blocks):
            for index in range(count):
                x = self.get_submodule(f"stage_{stage}_block_{index}")(x, masks)
        return self.output(global_average_pool(x))


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), F being `conv_i` and `norm_i` in turn with ReLU between
    them.

    Args:
      num_inputs: channels of the input.
      channels: of the 3x3 convolutions.
      stride: of the first 3x3 convolution and the shortcut.
      bottleneck, projection: as in `Layout`.
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
        wide = 4 * channels
        layers = (
            ((channels, 1, 1), (channels, 3, stride), (wide, 1, 1))
            if bottleneck
            else ((channels, 3, stride), (channels, 3, 1))
        )
        self.num_layers, self.num_outputs, self.stride = (
            len(layers),
            layers[-1][0],
            stride,
        )
        fan_in = num_inputs
        for layer, (size, kernel_size, layer_stride) in enumerate(layers):
            self.add_module(
                f"conv_{layer}",
                Conv(fan_in, size, kernel_size, layer_stride, use_bias=False),
            )
            self.add_module(f"norm_{layer}", BatchNorm(size))
            fan_in = size
        self.changes_shape = stride > 1 or num_inputs != self.num_outputs
        self.projects = projection and self.changes_shape
        if self.projects:
            self.shortcut_conv = Conv(
                num_inputs, self.num_outputs, 1, stride, use_bias=False
            )
            self.shortcut_norm = BatchNorm(self.num_outputs)

    def forward(self, x: torch.Tensor, masks: MaskSource | None = None) -> torch.Tensor:
        """[batch, height, width, in] -> [batch, ceil(height / stride), ceil(width /
        stride), out]."""
        y = x
        for layer in range(self.num_layers):
            y = self.get_submodule(f"conv_{layer}")(torch.relu(y) if layer else y)
            y = self.get_submodule(f"norm_{layer}")(y, masks)
        return torch.relu(y + self._shortcut(x, masks))

    def _shortcut(self, x: torch.Tensor, masks: MaskSource | None) -> torch.Tensor:
        if not self.changes_shape:
            return x
        if self.projects:
            return self.shortcut_norm(self.shortcut_conv(x), masks)
        x = x[:, :: self.stride, :: self.stride]
        return functional.pad(x, (0, self.num_outputs - x.shape[-1]))


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

"""Residual networks (He et al. 2016), in torch's own layers."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref.models.resnet import LAYOUTS, Layout, block_layers
from torch_ref.plain.networks.cnn import channels_first


class ResNet(nn.Module):
    """Stem, stages of residual blocks, average over all positions, one dense layer.

    Args:
      experiment: depth.
      signature: shapes of the images and outputs.
    """

    def __init__(self, experiment: Experiment, signature: Signature):
        super().__init__()
        layout = LAYOUTS[experiment.resnet_depth]
        inputs = signature.input_shape[-1]
        size, stride = layout.stem_size, layout.stem_stride
        self.stem_conv = _conv(inputs, layout.channels, size, stride)
        self.stem_norm = nn.BatchNorm2d(layout.channels)
        self.pool = nn.MaxPool2d(3, 2, 1) if layout.stem_pool else nn.Identity()
        self.blocks = []
        width = layout.channels
        for name, channels, stride in _plan(layout):
            block = Block(width, channels, stride, layout)
            self.add_module(name, block)
            self.blocks.append(name)
            width = block.num_outputs
        self.output = nn.Linear(width, signature.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] -> [batch, num_outputs]."""
        x = self.stem_norm(self.stem_conv(channels_first(x)))
        x = self.pool(torch.relu(x))
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.output(x.mean((2, 3)))


class Block(nn.Module):
    """relu(shortcut(x) + F(x)), F convolutions and normalizations in turn.

    Args:
      num_inputs: channels of the input.
      channels: channels of the 3x3 convolutions.
      stride: stride of the first 3x3 convolution and the shortcut.
      layout: architecture.
    """

    def __init__(self, num_inputs: int, channels: int, stride: int, layout: Layout):
        super().__init__()
        layers = block_layers(channels, stride, layout.bottleneck)
        self.num_layers = len(layers)
        self.num_outputs = layers[-1][0]
        self.stride = stride
        widths = (num_inputs, *(width for width, _, _ in layers))
        for number, (width, size, layer_stride) in enumerate(layers):
            conv = _conv(widths[number], width, size, layer_stride)
            self.add_module(f"conv_{number}", conv)
            self.add_module(f"norm_{number}", nn.BatchNorm2d(width))
        self.changes = stride > 1 or num_inputs != self.num_outputs
        self.projects = layout.projection and self.changes
        if self.projects:
            self.shortcut_conv = _conv(num_inputs, self.num_outputs, 1, stride)
            self.shortcut_norm = nn.BatchNorm2d(self.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, height, width] -> [batch, channels, height', width']."""
        y = x
        for number in range(self.num_layers):
            y = torch.relu(y) if number else y
            y = getattr(self, f"conv_{number}")(y)
            y = getattr(self, f"norm_{number}")(y)
        return torch.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.changes:
            return x
        if self.projects:
            return self.shortcut_norm(self.shortcut_conv(x))
        # Every second pixel, and zero channels.
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, 0, self.num_outputs - x.shape[1]))


def _plan(layout: Layout) -> list[tuple[str, int, int]]:
    """Returns (name, channels of its 3x3 convolutions, stride) of every block."""
    stages = [
        itertools.product([stage], range(count))
        for stage, count in enumerate(layout.blocks)
    ]
    return [
        (
            f"stage_{stage}_block_{index}",
            layout.channels * 2**stage,
            2 if stage and not index else 1,
        )
        for stage, index in itertools.chain(*stages)
    ]


def _conv(num_inputs: int, channels: int, size: int, stride: int) -> nn.Conv2d:
    padding = (size - 1) // 2
    return nn.Conv2d(num_inputs, channels, size, stride, padding, bias=False)

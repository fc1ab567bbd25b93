"""Residual networks (He et al. 2016) in the four layouts of jaxnn/models/resnet.py."""

from typing import NamedTuple

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.activations import relu
from parity.oracle.convolution import conv_layer, global_average_pool, max_pool
from parity.oracle.initializers import INITIALIZERS, Initializer
from parity.oracle.layers import batch_norm, dense
from parity.oracle.operations import pad
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor


class Layout(NamedTuple):
    """Architecture of one depth.

    Attributes:
      stem_size: kernel size of the first convolution.
      stem_stride: stride of the first convolution.
      stem_pool: True if a 3x3 max pooling of stride 2 follows it.
      blocks: residual blocks per stage; every stage but the first halves height and
        width.
      channels: channels of the first stage; each stage doubles them.
      bottleneck: True for blocks of 1x1, 3x3 and 1x1 convolutions, False for two 3x3.
      projection: True if shortcuts that change shape are 1x1 convolutions (option B of
        the paper), False for every second pixel and zero channels (option A).
    """

    stem_size: int
    stem_stride: int
    stem_pool: bool
    blocks: tuple[int, ...]
    channels: int
    bottleneck: bool
    projection: bool


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor
) -> Tensor:
    """Stem, stages of residual blocks, global average pool and a Dense layer `output`.

    Args:
      scope: parameters and running statistics.
      experiment: model flags.
      signature: shapes of the inputs and outputs.
      x: [batch, height, width, channels].
    """
    layout = LAYOUTS[experiment.resnet_depth]
    initializer = INITIALIZERS[experiment.initializer]

    x = _stem(scope, layout, x, initializer)
    for stage, count in enumerate(layout.blocks):
        width = layout.channels * 2**stage
        for index in range(count):
            # The first block of every stage but the first halves height and width.
            stride = 2 if stage > 0 and index == 0 else 1
            name = f"stage_{stage}_block_{index}"
            x = _block(scope, name, layout, width, stride, x, initializer)

    x = global_average_pool(x)
    return dense(scope, "output", signature.num_outputs, x, initializer)


def _stem(scope: Scope, layout: Layout, x: Tensor, initializer: Initializer) -> Tensor:
    x = conv_layer(
        scope,
        "stem_conv",
        layout.channels,
        layout.stem_size,
        x,
        initializer,
        layout.stem_stride,
        use_bias=False,
    )
    x = relu(batch_norm(scope, "stem_norm", x))
    return max_pool(x, 3, stride=2, padding=1) if layout.stem_pool else x


def _block(
    scope: Scope,
    name: str,
    layout: Layout,
    width: int,
    stride: int,
    x: Tensor,
    initializer: Initializer,
) -> Tensor:
    """relu(shortcut(x) + F(x)), F being `conv_i`, `norm_i` in turn, ReLU between."""
    # (channels, kernel size, stride) of each convolution. The stride of a bottleneck is
    # in its 3x3 convolution, as in torchvision ("v1.5"), not in the first 1x1.
    if layout.bottleneck:
        layers = ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))
    else:
        layers = ((width, 3, stride), (width, 3, 1))

    y = x
    for layer, (channels, size, step) in enumerate(layers):
        y = conv_layer(
            scope,
            f"{name}/conv_{layer}",
            channels,
            size,
            relu(y) if layer > 0 else y,
            initializer,
            step,
            use_bias=False,
        )
        y = batch_norm(scope, f"{name}/norm_{layer}", y)

    shortcut = _shortcut(scope, name, layout, y.shape[-1], stride, x, initializer)
    return scope.keep(name, relu(y + shortcut))


def _shortcut(
    scope: Scope,
    name: str,
    layout: Layout,
    channels: int,
    stride: int,
    x: Tensor,
    initializer: Initializer,
) -> Tensor:
    if stride == 1 and x.shape[-1] == channels:
        return x
    if not layout.projection:
        return pad(x[:, ::stride, ::stride], 0, channels - x.shape[-1], axis=3)
    y = conv_layer(
        scope,
        f"{name}/shortcut_conv",
        channels,
        1,
        x,
        initializer,
        stride,
        use_bias=False,
    )
    return batch_norm(scope, f"{name}/shortcut_norm", y)


# Depths 20 and 32 are the paper's for CIFAR-10, 18 and 50 those for ImageNet.
LAYOUTS: dict[int, Layout] = {
    20: Layout(3, 1, False, (3, 3, 3), 16, bottleneck=False, projection=False),
    32: Layout(3, 1, False, (5, 5, 5), 16, bottleneck=False, projection=False),
    18: Layout(7, 2, True, (2, 2, 2, 2), 64, bottleneck=False, projection=True),
    50: Layout(7, 2, True, (3, 4, 6, 3), 64, bottleneck=True, projection=True),
}

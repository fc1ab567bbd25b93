"""Residual networks (He et al. 2016) in the four layouts of jaxnn/models/resnet.py."""

from typing import NamedTuple

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.activations import relu
from parity.oracle.convolution import conv_layer, global_average_pool, max_pool
from parity.oracle.initializers import INITIALIZERS
from parity.oracle.layers import batch_norm, dense
from parity.oracle.operations import pad
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor


class Layout(NamedTuple):
    """What one depth is built of.

    Attributes:
      stem_size, stem_stride, stem_pool: the first convolution, and whether a 3x3 max
        pooling of stride 2 follows.
      blocks: residual blocks of each stage; every stage but the first halves height and
        width.
      channels: of the first stage; each stage doubles them.
      bottleneck: blocks of 1x1, 3x3, 1x1 convolutions instead of two 3x3.
      projection: shortcuts that change shape are convolutions, instead of every second
        pixel and zero channels.
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
    """Stem, stages of residual blocks, average over all positions, `output`."""
    layout, start = (
        LAYOUTS[experiment.resnet_depth],
        INITIALIZERS[experiment.initializer],
    )
    x = conv_layer(
        scope,
        "stem_conv",
        layout.channels,
        layout.stem_size,
        x,
        start,
        layout.stem_stride,
        use_bias=False,
    )
    x = relu(batch_norm(scope, "stem_norm", x))
    x = max_pool(x, 3, stride=2, padding=1) if layout.stem_pool else x
    for stage, count in enumerate(layout.blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            x = _block(
                scope,
                f"stage_{stage}_block_{index}",
                layout,
                stage,
                stride,
                x,
                experiment.initializer,
            )
    return dense(scope, "output", signature.num_outputs, global_average_pool(x), start)


def _block(
    scope: Scope,
    name: str,
    layout: Layout,
    stage: int,
    stride: int,
    x: Tensor,
    initializer: str,
) -> Tensor:
    """relu(shortcut(x) + F(x)), F being `conv_i` and `norm_i` in turn with ReLU between
    them."""
    width, start = layout.channels * 2**stage, INITIALIZERS[initializer]
    layers = (
        ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))
        if layout.bottleneck
        else ((width, 3, stride), (width, 3, 1))
    )
    y = x
    for layer, (channels, size, step) in enumerate(layers):
        y = conv_layer(
            scope,
            f"{name}/conv_{layer}",
            channels,
            size,
            relu(y) if layer else y,
            start,
            step,
            use_bias=False,
        )
        y = batch_norm(scope, f"{name}/norm_{layer}", y)
    channels = y.shape[-1]
    if stride == 1 and x.shape[-1] == channels:
        shortcut = x
    elif layout.projection:
        shortcut = conv_layer(
            scope,
            f"{name}/shortcut_conv",
            channels,
            1,
            x,
            start,
            stride,
            use_bias=False,
        )
        shortcut = batch_norm(scope, f"{name}/shortcut_norm", shortcut)
    else:
        shortcut = pad(x[:, ::stride, ::stride], 0, channels - x.shape[-1], axis=3)
    return scope.keep(name, relu(y + shortcut))


LAYOUTS: dict[int, Layout] = {
    20: Layout(3, 1, False, (3, 3, 3), 16, bottleneck=False, projection=False),
    32: Layout(3, 1, False, (5, 5, 5), 16, bottleneck=False, projection=False),
    18: Layout(7, 2, True, (2, 2, 2, 2), 64, bottleneck=False, projection=True),
    50: Layout(7, 2, True, (3, 4, 6, 3), 64, bottleneck=True, projection=True),
}

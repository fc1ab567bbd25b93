"""Convolution and pooling of images [batch, height, width, channels].

Twin of jaxnn/models/convolution.py.
"""

import torch
from torch import Tensor as Array
from torch import nn
from torch.nn import functional


class Conv(nn.Conv2d):
    """Cross-correlation with (size - 1) // 2 zeros on each side, for every stride.

    The parameters are `weight` [out, in, size, size] and `bias` [out].

    Args:
      num_inputs: channels of the input.
      channels: channels of the output.
      size: height and width of the kernel.
      stride: distance between two positions of the kernel.
      use_bias: False before a normalization, which has a bias of its own.
    """

    def __init__(
        self,
        num_inputs: int,
        channels: int,
        size: int,
        stride: int = 1,
        use_bias: bool = True,
    ):
        padding = (size - 1) // 2
        super().__init__(num_inputs, channels, size, stride, padding, bias=use_bias)
        self._margin = padding

    def forward(self, x: Array) -> Array:
        """[batch, height, width, in] -> [batch, height', width', channels].

        height' = ceil(height / stride), and likewise the width.
        """
        return conv(x, self.weight, self.bias, self.stride[0], self._margin)


def conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Array:
    """y[b,i,j,o] = sum_{u,v,c} x[b, s i + u - p, s j + v - p, c] kernel[o,c,u,v].

    Args:
      x: [batch, height, width, in] images; zero outside.
      kernel: [out, in, kernel height, kernel width], of the same dtype.
      bias: [out], added to y, or None.
      stride: distance s between two positions of the kernel.
      padding: zeros p on each of the four sides.

    Returns:
      [batch, (height + 2 p - kernel height) // s + 1, likewise for the width, out].
    """
    x = _channels_first(x)
    if not _is_fp16_in_software(x):
        return _channels_last(functional.conv2d(x, kernel, bias, stride, padding))

    # Summed in float32, as instructions for FP16 would: torch's software kernel rounds
    # the kernel's gradient after every example, which makes it 5 times less exact at 64
    # of them.
    wide_bias = None if bias is None else bias.float()
    y = functional.conv2d(x.float(), kernel.float(), wide_bias, stride, padding)
    return _channels_last(y.half())


def max_pool(x: Array, size: int, stride: int | None = None, padding: int = 0) -> Array:
    """Largest value of each window.

    The gradient goes to the first maximum in row-major order.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window; windows that would cross the border are left
        out.
      stride: distance between two windows; None for `size`, so that none overlap.
      padding: rows and columns added on each of the four sides.
    """
    y = functional.max_pool2d(_channels_first(x), size, stride, padding)
    return _channels_last(y)


def average_pool(x: Array, size: int) -> Array:
    """Mean of each window, without overlap.

    Rows and columns that fill no window are left out.

    Args:
      x: [batch, height, width, channels].
      size: height and width of a window.
    """
    return _channels_last(functional.avg_pool2d(_channels_first(x), size))


def global_average_pool(x: Array) -> Array:
    """Mean over positions: [batch, height, width, channels] -> [batch, channels]."""
    return x.mean((1, 2))


def _is_fp16_in_software(x: Array) -> bool:
    """Returns True on a CPU without instructions for FP16."""
    return (
        x.dtype == torch.float16
        and x.device.type == "cpu"
        and not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    )


# torch's kernels name the axes batch, channels, height, width. Permuted views of our
# images are its `channels_last` memory format: no copy is made.
def _channels_first(x: Array) -> Array:
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Array) -> Array:
    return x.permute(0, 2, 3, 1)

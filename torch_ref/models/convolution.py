"""Convolution and pooling of images [batch, height, width, channels]. Twin of
jaxnn/models/convolution.py.

torch's kernels name the axes batch, channels, height, width; permuted, such images are
its `channels_last` format.
"""

import torch
from torch import nn
from torch.nn import functional


class Conv(nn.Conv2d):
    """Cross-correlation with symmetric padding of (size - 1) // 2 zeros, for every
    stride.

    FP16 on a CPU without instructions for it is summed in float32, as instructions
    would do: torch's software kernel rounds the kernel's gradient after every example,
    which makes it 5 times less exact at 64 of them.

    Its parameters are torch's `weight` [out, in, size, size] and, where asked for,
    `bias` [out].

    Args:
      num_inputs: channels of the input.
      channels: of the output.
      size: height and width of the kernel.
      stride: between two positions of the kernel.
      use_bias: False in front of a normalization that has a bias of its own.
    """

    def __init__(
        self,
        num_inputs: int,
        channels: int,
        size: int,
        stride: int = 1,
        use_bias: bool = True,
    ):
        super().__init__(
            num_inputs, channels, size, stride, (size - 1) // 2, bias=use_bias
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, height, width, in] -> [batch, ceil(height / stride), ceil(width /
        stride), channels]."""
        x = _channels_first(x)
        if not _is_fp16_in_software(x):
            return _channels_last(super().forward(x))
        bias = None if self.bias is None else self.bias.float()
        return _channels_last(
            self._conv_forward(x.float(), self.weight.float(), bias).half()
        )


def max_pool(
    x: torch.Tensor, size: int, stride: int | None = None, padding: int = 0
) -> torch.Tensor:
    """The largest value of each window; its gradient goes to the first maximum in
    row-major order.

    Args:
      x: [batch, height, width, channels]; minus infinity outside.
      size: height and width of a window; windows that would cross the border are left
        out.
      stride: between two windows; None: `size`, so that they do not overlap.
      padding: on each of the four sides.
    """
    return _channels_last(
        functional.max_pool2d(_channels_first(x), size, stride, padding)
    )


def average_pool(x: torch.Tensor, size: int) -> torch.Tensor:
    """The mean of each size x size window, [batch, height, width, channels] -> [batch,
    height // size, ...].

    Windows do not overlap; rows and columns that fill no window are left out.
    """
    return _channels_last(functional.avg_pool2d(_channels_first(x), size))


def global_average_pool(x: torch.Tensor) -> torch.Tensor:
    """The mean over all positions, [batch, height, width, channels] -> [batch,
    channels]."""
    return x.mean((1, 2))


def _is_fp16_in_software(x: torch.Tensor) -> bool:
    return (
        x.dtype == torch.float16
        and x.device.type == "cpu"
        and not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    )


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)

"""Convolutional network, as a sequence of torch's layers.

Images come as [batch, height, width, channels]. Their permuted view is torch's memory
format `channels_last`, which its kernels keep; no copy is made.
"""

from torch import Tensor, nn
from torch.nn import functional

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref.plain.networks.dense import Apply, activation, hidden_layers, named

POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] -> the same."""
        return channels_first(super().forward(channels_last(x)))


def cnn(experiment: Experiment, signature: Signature) -> nn.Sequential:
    """Convolution, normalization, activation and pooling in turn, then an MLP."""
    height, width, before = signature.input_shape
    layers: dict[str, nn.Module] = {"first": Apply(channels_first)}
    size, padding = experiment.kernel_size, (experiment.kernel_size - 1) // 2
    for number, channels in enumerate(experiment.channels):
        use_bias = experiment.use_bias
        conv = nn.Conv2d(before, channels, size, padding=padding, bias=use_bias)
        layers[f"conv_{number}"] = conv
        if experiment.normalization != "none":
            norm = NORMALIZATIONS[experiment.normalization](channels)
            layers[f"norm_{number}"] = norm
        layers[f"conv_activation_{number}"] = _on_channels(experiment)
        # A pooling halves height and width, until one is 1.
        if min(height, width) > 1:
            layers[f"pool_{number}"] = POOLS[experiment.pool](2)
            height, width = height // 2, width // 2
        before = channels
    layers |= {"last": Apply(channels_last), "flatten": nn.Flatten()}
    flat = height * width * before
    layers |= hidden_layers(experiment, flat, "hidden_norm")
    inner = (flat, *experiment.hidden_sizes)[-1]
    output = nn.Linear(inner, signature.num_outputs, experiment.use_bias)
    return named({**layers, "output": output})


def _on_channels(experiment: Experiment) -> nn.Module:
    """Returns `--activation` for images with the channels first."""
    if experiment.activation == "softmax":
        return Apply(lambda x: functional.softmax(x, dim=1))
    return activation(experiment)


def channels_first(x: Tensor) -> Tensor:
    """[batch, height, width, channels] -> [batch, channels, height, width]."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """[batch, channels, height, width] -> [batch, height, width, channels]."""
    return x.permute(0, 2, 3, 1)


NORMALIZATIONS = {"batch": nn.BatchNorm2d, "layer": ChannelNorm}

"""The networks of the benchmarks as a PyTorch tutorial has them, for the eager loop."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """The experiment's network; images come as jaxnn has them, [batch, height, width,
    channels]."""
    return {
        "cnn": cnn,
        "resnet": ResNet,
        "lstm": Recurrent,
        "gru": Recurrent,
        "rnn": Recurrent,
        "transformer": Transformer,
    }.get(experiment.model, mlp)(experiment, signature)


def mlp(experiment: Experiment, signature: Signature, inputs: int = 0) -> nn.Sequential:
    """Linear, ReLU, Dropout for each hidden layer, then Linear."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = inputs or torch.Size(signature.input_shape).numel()
    for number, size in enumerate(experiment.hidden_sizes):
        layers += [nn.Linear(width, size), nn.ReLU()]
        layers += (
            [nn.Dropout(experiment.dropout_rates[number])]
            if experiment.dropout_rates
            else []
        )
        width = size
    return nn.Sequential(*layers, nn.Linear(width, signature.num_outputs))


class ChannelsFirst(nn.Module):
    """[batch, height, width, channels] -> [batch, channels, height, width]."""

    def forward(self, x):
        return x.permute(0, 3, 1, 2)


def cnn(experiment: Experiment, signature: Signature) -> nn.Sequential:
    """Convolution, ReLU, pooling for each channel count, then the MLP."""
    height, width, before = signature.input_shape
    layers: list[nn.Module] = [ChannelsFirst()]
    for channels in experiment.channels:
        layers += [
            nn.Conv2d(before, channels, experiment.kernel_size, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        before, height, width = channels, height // 2, width // 2
    return nn.Sequential(*layers, mlp(experiment, signature, before * height * width))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, before: int, channels: int):
        super().__init__()
        self.stride, self.more = 1 + (channels > before), channels - before
        self.first = nn.Conv2d(before, channels, 3, self.stride, 1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.first_norm, self.second_norm = (
            nn.BatchNorm2d(channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        y = self.second_norm(
            self.second(functional.relu(self.first_norm(self.first(x))))
        )
        shortcut = functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
        )
        return functional.relu(y + shortcut)


class ResNet(nn.Sequential):
    """ResNet-20 for small images."""

    def __init__(self, experiment: Experiment, signature: Signature):
        del experiment
        stem = [
            ChannelsFirst(),
            nn.Conv2d(signature.input_shape[-1], 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
        widths = [16, *[16] * 3, *[32] * 3, *[64] * 3]
        blocks = [Block(before, after) for before, after in itertools.pairwise(widths)]
        super().__init__(
            *stem,
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, signature.num_outputs),
        )


class Recurrent(nn.Module):
    """torch's own recurrent layers and a head on the last step."""

    def __init__(self, experiment: Experiment, signature: Signature):
        super().__init__()
        layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[experiment.model]
        size = experiment.hidden_sizes[0]
        self.layers = layer(
            signature.input_shape[-1],
            size,
            len(experiment.hidden_sizes),
            batch_first=True,
        )
        self.head = nn.Linear(size, signature.num_outputs)

    def forward(self, x):
        return self.head(self.layers(x)[0][:, -1])


class Transformer(nn.Module):
    """torch's own encoder layers, normalized first, under a causal mask; logits as
    cross_entropy wants them."""

    def __init__(self, experiment: Experiment, signature: Signature):
        super().__init__()
        width = experiment.width
        self.embedding = nn.Embedding(signature.num_tokens, width)
        self.positions = nn.Parameter(torch.zeros(signature.input_shape[0], width))
        layer = nn.TransformerEncoderLayer(
            width,
            experiment.num_heads,
            4 * width,
            0.0,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            layer,
            experiment.num_layers,
            nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(width, signature.num_outputs)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = self.blocks(self.embedding(x) + self.positions, mask, is_causal=True)
        return self.head(x).transpose(1, 2)

"""A residual network for images, whose loss the training script computes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn
from flax import traverse_util
from torch.nn import functional

from tests.parity.own.ports import faults, layers, weights

CHANNELS = (8, 16, 32)  # of the stages, of one block each
CLASSES, SIZE, ROWS = 5, 16, 4
EPSILON, MOMENTUM = 1e-5, 0.1  # torch's: the share of the new batch


class TorchBlock(torch.nn.Module):
    """Two convolutions beside a shortcut, over [batch, before, height, width]."""

    def __init__(self, before: int, after: int):
        super().__init__()
        stride = after // before
        self.conv1 = _torch_conv(before, after, 3, stride)
        self.bn1 = torch.nn.BatchNorm2d(after)
        self.relu1 = torch.nn.ReLU()
        self.conv2 = _torch_conv(after, after, 3)
        self.bn2 = torch.nn.BatchNorm2d(after)
        torch.nn.init.constant_(self.bn2.weight, 3)  # for activations beyond six
        self.relu2 = torch.nn.ReLU()
        self.downsample = torch.nn.Sequential()
        if stride > 1:
            self.downsample.append(_torch_conv(before, after, 1, stride))
            self.downsample.append(torch.nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(branch)) + self.downsample(x))


class TorchResNet(torch.nn.Module):
    """Logits, [batch, CLASSES], of images, [batch, 3, SIZE, SIZE]."""

    def __init__(self):
        super().__init__()
        self.conv1 = _torch_conv(3, CHANNELS[0], 3)
        self.bn1 = torch.nn.BatchNorm2d(CHANNELS[0])
        self.relu = torch.nn.ReLU()
        before = (CHANNELS[0], *CHANNELS)
        self.stages = torch.nn.ModuleList(map(TorchBlock, before, CHANNELS))
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.fc = torch.nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        for stage in self.stages:
            x = stage(x)
        return self.fc(self.pool(x).flatten(1))


def _torch_conv(before: int, after: int, size: int, stride: int = 1) -> torch.nn.Conv2d:
    """Returns a convolution padded alike on both sides."""
    return torch.nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)


def torch_model(seed: int) -> torch.nn.Module:
    return weights.randomized(seed, TorchResNet)


def batch(step: int) -> dict[str, torch.Tensor]:
    """Returns images, [ROWS, 3, SIZE, SIZE]."""
    generator = torch.Generator().manual_seed(2000 + step)
    return {"images": torch.randn(ROWS, 3, SIZE, SIZE, generator=generator)}


def labels(step: int) -> torch.Tensor:
    """Returns classes, [ROWS], which only the training script sees."""
    generator = torch.Generator().manual_seed(3000 + step)
    return torch.randint(0, CLASSES, (ROWS,), generator=generator)


def training_loss(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], step: int
) -> torch.Tensor:
    logits = module(**inputs)
    return torch.nn.CrossEntropyLoss()(logits, labels(step).to(logits.device))


class BatchNorm(nn.Module):
    """Normalizes channels, the last axis, by the batch's mean and variance.

    As torch does, it counts the running variance with one row less.

    Attributes:
      epsilon: added to the variance.
      momentum: share of the batch in the running statistics.
    """

    epsilon: float = EPSILON
    momentum: float = MOMENTUM

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        mean = layers.wide(x).mean((0, 1, 2))
        centred = layers.wide(x) - mean.reshape(1, 1, 1, -1)
        variance = jnp.square(centred).mean((0, 1, 2))
        self._run("mean", nn.initializers.zeros, mean)
        count = x.size // x.shape[-1]
        self._run("var", nn.initializers.ones, variance * (count / (count - 1)))
        factor = jax.lax.rsqrt(variance + self.epsilon) * layers.wide(scale)
        scaled = centred * factor.reshape(1, 1, 1, -1)
        return (scaled + layers.wide(bias).reshape(1, 1, 1, -1)).astype(x.dtype)

    def _run(self, name: str, init: nn.initializers.Initializer, new: jax.Array):
        old = self.variable("batch_stats", name, init, None, new.shape)
        if not self.is_initializing():
            mixed = layers.wide(old.value) * (1 - self.momentum)
            mixed = mixed + self.momentum * new
            old.value = mixed.astype(old.value.dtype)


def conv(channels: int, size: int, stride: int, name: str) -> nn.Conv:
    """Returns a convolution padded alike on both sides, which "SAME" would not be."""
    padding = ((size // 2, size // 2),) * 2
    return nn.Conv(
        channels, (size, size), stride, padding=padding, use_bias=False, name=name
    )


class Block(nn.Module):
    """Two convolutions beside a shortcut, over [batch, height, width, channels].

    Attributes:
      channels: of the output.
    """

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = self.channels // x.shape[-1]
        branch = BatchNorm(name="bn1")(conv(self.channels, 3, stride, "conv1")(x))
        branch = conv(self.channels, 3, 1, "conv2")(nn.relu(branch))
        branch = BatchNorm(name="bn2")(branch)
        if stride > 1:
            x = conv(self.channels, 1, stride, "downsample_0")(x)
            x = BatchNorm(name="downsample_1")(x)
        return nn.relu(branch + x)


class ResNet(nn.Module):
    """Logits, [batch, CLASSES], of images, [batch, 3, SIZE, SIZE]."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = conv(CHANNELS[0], 3, 1, "conv1")(images.transpose(0, 2, 3, 1))
        x = nn.relu(BatchNorm(name="bn1")(x))
        for number, channels in enumerate(CHANNELS):
            x = Block(channels, name=f"stages_{number}")(x)
        pooled = layers.wide(x).mean((1, 2)).astype(x.dtype)
        return nn.Dense(CLASSES, name="fc")(pooled)


model = ResNet()


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of labels, in the logits' dtype."""
    return layers.cross_entropy(outputs, labels)


def convert(state: dict[str, np.ndarray]) -> dict:
    """Returns the port's parameters; kernels are [height, width, in, out] there."""
    tree = {
        "conv1": _kernel(state, "conv1"),
        "bn1": _norm(state, "bn1"),
        "fc": {"kernel": state["fc.weight"].T, "bias": state["fc.bias"]},
    }
    for number in range(len(CHANNELS)):
        tree[f"stages_{number}"] = _block(state, f"stages.{number}")
    return tree


def _block(state: dict[str, np.ndarray], name: str) -> dict:
    tree = {
        **{part: _kernel(state, f"{name}.{part}") for part in ("conv1", "conv2")},
        **{part: _norm(state, f"{name}.{part}") for part in ("bn1", "bn2")},
    }
    if f"{name}.downsample.0.weight" in state:
        tree["downsample_0"] = _kernel(state, f"{name}.downsample.0")
        tree["downsample_1"] = _norm(state, f"{name}.downsample.1")
    return tree


def _kernel(state: dict[str, np.ndarray], name: str) -> dict:
    return {"kernel": state[f"{name}.weight"].transpose(2, 3, 1, 0)}


def _norm(state: dict[str, np.ndarray], name: str) -> dict:
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}


def convert_stats(state: dict[str, np.ndarray]) -> dict:
    """Returns the port's `batch_stats`, of torch's buffers by name."""
    leaves = {}
    for name, array in state.items():
        if ".running_" in name:
            joined = re.sub(r"(stages|downsample)\.(\d)", r"\1_\2", name)
            leaves[joined.replace(".running_", ".")] = array
    return traverse_util.unflatten_dict(leaves, sep=".")


FAULTS = {
    "norm_epsilon": faults.Fault(
        "bn1",
        "BatchNorm adds 1e-3 to the variance instead of 1e-5",
        faults.attribute(torch.nn.BatchNorm2d, eps=1e-3),
    ),
    "norm_momentum": faults.Fault(
        "bn1",
        "running statistics take a hundredth of the batch instead of a tenth",
        faults.attribute(torch.nn.BatchNorm2d, momentum=0.01),
        shows_in="buffers",
    ),
    "relu6": faults.Fault(
        "stages.0.relu2",
        "ReLU stops at six",
        faults.output(r".*relu\d?", faults.relu6),
    ),
    "uneven_padding": faults.Fault(
        "stages.1.conv1",
        "strided convolutions are padded below and to the right only",
        faults.together(
            faults.attribute(r"stages\.[12]\.conv1", padding=(0, 0)),
            faults.arguments(
                r"stages\.[12]\.conv1", lambda x: functional.pad(x, (0, 1, 0, 1))
            ),
        ),
    ),
    "sum_pooling": faults.Fault(
        "pool",
        "the images' pixels are summed instead of averaged",
        faults.output("pool", lambda x, mean: mean * x.shape[2] * x.shape[3]),
    ),
}

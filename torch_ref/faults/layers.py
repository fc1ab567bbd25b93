"""Faults in layers: activation, normalization, recurrence, convolution, attention.

The plants come first, then what experiments they need, then the table.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from jaxnn.experiment.catalogue import RECURRENT, TRANSFORMERS
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    flattens_channels,
    has_gelu,
    has_square_kernel,
    is_model,
    normalizes,
)
from torch_ref.activations import gelu_tanh
from torch_ref.faults.fault import STEP, Fault, Scene
from torch_ref.faults.recurrence import (
    flipped_update,
    recurrent,
    remembering,
    reordered,
    without_second_bias,
)
from torch_ref.models import attention, convolution, normalization, transformer

KERAS_BATCH_NORM_EPSILON = 1e-3
FLAX_LAYER_NORM_EPSILON = 1e-6


def _gelu_tanh(scene: Scene) -> tuple[Patch, ...]:
    # A transformer calls gelu by name, other networks hold their activation.
    is_transformer = scene.experiment.model in TRANSFORMERS
    holder = transformer if is_transformer else scene.engine.module
    name = "gelu" if is_transformer else "activation"
    return (Patch(holder, name, lambda plain: gelu_tanh),)


def _batch_norm_by_running(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        # Without masks a layer is in evaluation, and updates no statistics.
        return lambda layer, x, masks=None: plain(layer, x)

    return (Patch(normalization.BatchNorm, "forward", make),)


def _layer_norm_epsilon(scene: Scene) -> tuple[Patch, ...]:
    return tuple(
        Patch(layer, "eps", lambda plain: FLAX_LAYER_NORM_EPSILON)
        for layer in scene.engine.module.modules()
        if isinstance(layer, nn.LayerNorm)
    )


def _normalization(name: str, make: Callable):
    """Plants another value of a name in the module `normalization`."""
    return lambda scene: (Patch(normalization, name, make),)


def _flatten_order(scene: Scene) -> tuple[Patch, ...]:
    """Gives the first dense layer what a channels-first image is flattened to."""
    channels = scene.experiment.channels[-1]
    layers = scene.engine.module.modules()
    first = next(layer for layer in layers if isinstance(layer, nn.Linear))

    def make(plain):
        def forward(x):
            pixels = x.unflatten(1, (-1, channels))
            return plain(pixels.transpose(1, 2).flatten(1))

        return forward

    return (Patch(first, "forward", make),)


def _kernel_transposed(scene: Scene) -> tuple[Patch, ...]:
    # A function of the layer, so that each patch binds its own.
    def make_for(layer: nn.Linear):
        return lambda plain: lambda x: functional.linear(x, layer.weight.T, layer.bias)

    return tuple(
        Patch(layer, "forward", make_for(layer))
        for layer in scene.engine.module.modules()
        if isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
    )


def _kernel_flipped(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        return lambda x, kernel, *args: plain(x, kernel.flip(2, 3), *args)

    return (Patch(convolution, "conv", make),)


def _padding_asymmetric(scene: Scene) -> tuple[Patch, ...]:
    """Plants TensorFlow's padding of stride 2."""
    del scene

    def make(plain):
        def conv(x, kernel, bias, stride, padding):
            if stride == 1 or not padding:
                return plain(x, kernel, bias, stride, padding)
            height, width = (
                _same_padding(length, size, stride)
                for length, size in zip(x.shape[1:3], kernel.shape[2:])
            )
            # torch counts the padded axes from the last: channels, width, height.
            padded = functional.pad(x, (0, 0, *width, *height))
            return plain(padded, kernel, bias, stride, 0)

        return conv

    return (Patch(convolution, "conv", make),)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, as many as windows at every position need.

    An odd one is at the end.
    """
    needed = max(size - stride + -length % stride, 0)
    return needed // 2, needed - needed // 2


def _visible(see: Callable[[torch.Tensor], torch.Tensor]):
    """Plants another mask: all of [1, 1, steps, steps] -> what is seen of it."""

    def make(plain):
        return lambda steps: see(torch.ones(1, 1, steps, steps, dtype=torch.bool))

    return lambda scene: (Patch(attention, "visible", make),)


def _attention_unscaled(scene: Scene) -> tuple[Patch, ...]:
    del scene
    return (Patch(attention, "score_scale", lambda plain: lambda features: 1.0),)


def _embedding_scaled(scene: Scene) -> tuple[Patch, ...]:
    def make(plain):
        def forward(x):
            embedded = plain(x)
            return embedded * embedded.new_tensor(scene.experiment.width**0.5)

        return forward

    return (Patch(scene.engine.module.embedding, "forward", make),)


def _positions_missing(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        def embed(model, x):
            embedded = model.embedding(x if model.num_tokens else x.flatten(2))
            # Times 0 instead of left out, so that the table still has a gradient.
            return embedded + 0 * model.positions.weight[: x.shape[1]]

        return embed

    return (Patch(transformer.Transformer, "embed", make),)


_BATCH = "--normalization=batch or --model=resnet"
_LAYER = "--normalization=layer or a transformer"
_ANY_TRANSFORMER = "--model=transformer or transformer_encoder"

FAULTS = [
    # Activation and normalization.
    Fault(
        "gelu_tanh", STEP, "--activation=gelu or a transformer", has_gelu, _gelu_tanh
    ),
    Fault(
        "batch_norm_momentum_flipped",
        STEP,
        _BATCH,
        normalizes("batch"),
        _normalization("MOMENTUM", lambda plain: 1 - plain),
    ),
    Fault(
        "batch_norm_biased_variance",
        STEP,
        _BATCH,
        normalizes("batch"),
        _normalization("unbiased", lambda plain: lambda var, count: var),
    ),
    Fault(
        "batch_norm_by_running",
        STEP,
        _BATCH,
        normalizes("batch"),
        _batch_norm_by_running,
    ),
    Fault(
        "batch_norm_epsilon",
        STEP,
        _BATCH,
        normalizes("batch"),
        _normalization("EPSILON", lambda plain: KERAS_BATCH_NORM_EPSILON),
    ),
    Fault("layer_norm_epsilon", STEP, _LAYER, normalizes("layer"), _layer_norm_epsilon),
    # Recurrence.
    Fault(
        "lstm_gate_order", STEP, "--model=lstm", is_model("lstm"), recurrent(reordered)
    ),
    Fault(
        "lstm_forget_bias",
        STEP,
        "--model=lstm",
        is_model("lstm"),
        recurrent(remembering),
    ),
    Fault(
        "gru_update_gate_flipped",
        STEP,
        "--model=gru",
        is_model("gru"),
        recurrent(flipped_update),
    ),
    Fault(
        "one_recurrent_bias",
        STEP,
        "--model=rnn, lstm or gru",
        is_model(*RECURRENT),
        recurrent(without_second_bias),
    ),
    # Kernels and their layout.
    Fault(
        "flatten_order",
        STEP,
        "--model=cnn whose last convolution has several channels",
        flattens_channels,
        _flatten_order,
    ),
    Fault(
        "kernel_transposed",
        STEP,
        "two equal --hidden_sizes in a row or a transformer",
        has_square_kernel,
        _kernel_transposed,
    ),
    Fault(
        "kernel_flipped",
        STEP,
        "--model=cnn or resnet",
        is_model("cnn", "resnet"),
        _kernel_flipped,
    ),
    Fault(
        "padding_asymmetric",
        STEP,
        "--model=resnet",
        is_model("resnet"),
        _padding_asymmetric,
    ),
    # Attention and embedding.
    Fault(
        "causal_mask_off_by_one",
        STEP,
        "--model=transformer",
        is_model("transformer"),
        _visible(lambda seen: seen.tril(diagonal=1)),
    ),
    Fault(
        "causal_mask_missing",
        STEP,
        "--model=transformer",
        is_model("transformer"),
        _visible(lambda seen: seen),
    ),
    Fault(
        "attention_unscaled",
        STEP,
        _ANY_TRANSFORMER,
        is_model(*TRANSFORMERS),
        _attention_unscaled,
    ),
    Fault(
        "embedding_scaled",
        STEP,
        _ANY_TRANSFORMER,
        is_model(*TRANSFORMERS),
        _embedding_scaled,
    ),
    Fault(
        "positions_missing",
        STEP,
        _ANY_TRANSFORMER,
        is_model(*TRANSFORMERS),
        _positions_missing,
    ),
]

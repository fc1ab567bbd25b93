"""Switches on layers: activations, normalization, recurrence, convolution, attention,
embedding."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import activations
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.consistency import RECURRENT, TRANSFORMERS
from jaxnn.experiment.patches import Patch
from jaxnn.models import (
    attention,
    convolution,
    normalization,
    recurrence,
    resnet,
    rnn,
    transformer,
)
from jaxnn.models.recurrence import Cell
from parity.quantities import GRADIENTS
from parity.semantics.switch import Switch

KERAS_BATCH_NORM_EPSILON = 1e-3
FLAX_LAYER_NORM_EPSILON = 1e-6
OTHER_SLOPE = 0.2


def _transposed(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    del experiment
    square = (
        name.endswith("/kernel")
        and array.ndim == 2
        and array.shape[0] == array.shape[1]
    )
    return array.T if square else array


def _flipped(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    del experiment
    return array[::-1, ::-1] if name.endswith("/kernel") and array.ndim == 4 else array


def _channels_first(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    """Rows of the Dense layer behind the last convolution, as a channels-first
    flattening meets them."""
    if name != ("hidden_0/kernel" if experiment.hidden_sizes else "output/kernel"):
        return array
    return array[np.arange(len(array)).reshape(experiment.channels[-1], -1).T.ravel()]


def _multiplied(layer: str, factor: Callable[[Experiment], float]):
    """The parameters of a layer times a factor."""

    def change(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
        return (
            array * np.asarray(factor(experiment), array.dtype)
            if name.startswith(f"{layer}/")
            else array
        )

    return change


def _with_epsilon(epsilon: float):
    def make(plain):
        def normalize(x, mean, var, scale, bias):
            return plain(x, mean, var + (epsilon - normalization.EPSILON), scale, bias)

        return normalize

    return make


def _by_running_statistics(plain):
    """BatchNorm layers that are built as ever and called as in evaluation; they update
    nothing."""

    def build(**settings):
        layer = plain(**settings)
        return lambda x, masks=None: layer(x, None)

    return build


def _permuted(
    order: tuple[int, ...],
    signs: tuple[int, ...] | None = None,
    forget_bias: float = 0.0,
):
    """A cell whose gates are read from the kernels in another order, negated or with a
    bias on the forget gate."""

    def make(plain: Cell) -> Cell:
        gates = plain.gates
        sign, back = signs or (1,) * gates, tuple(np.argsort(order))

        def there(x: jax.Array) -> jax.Array:
            parts = jnp.split(x, gates, axis=-1)
            return jnp.concatenate([parts[i] * s for i, s in zip(order, sign)], axis=-1)

        def again(x: jax.Array) -> jax.Array:
            parts = [part * s for part, s in zip(jnp.split(x, gates, axis=-1), sign)]
            return jnp.concatenate([parts[i] for i in back], axis=-1)

        def forward(from_input, from_hidden, state):
            from_input = there(from_input)
            bias = (
                jnp.zeros_like(from_input)
                .reshape(len(from_input), gates, -1)
                .at[:, 1]
                .set(forget_bias)
            )
            return plain.forward(
                from_input + bias.reshape(from_input.shape), there(from_hidden), state
            )

        def backward(saved, grads):
            from_input, from_hidden, state = plain.backward(saved, grads)
            return again(from_input), again(from_hidden), state

        return Cell(gates, plain.states, forward, backward)

    return make


def _without_recurrent_bias(plain):
    return lambda cell, from_input, kernel, bias: plain(
        cell, from_input, kernel, jnp.zeros_like(bias)
    )


def _padded_as_same(plain):
    """Stride 2 with TensorFlow's padding: one row and column of zeros at the end alone."""

    def conv(x, kernel, stride=1, padding=0, algorithm="auto"):
        if stride == 1 or not padding:
            return plain(x, kernel, stride, padding, algorithm)
        sides = [
            _same(n, size, stride) for n, size in zip(x.shape[1:3], kernel.shape[:2])
        ]
        return plain(jnp.pad(x, [(0, 0), *sides, (0, 0)]), kernel, stride, 0, algorithm)

    return conv


def _same(length: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and behind, for an output of ceil(length / stride)."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _visible_from(offset: int):
    return lambda plain: (
        lambda steps: jnp.tril(jnp.ones((1, 1, steps, steps), bool), k=offset)
    )


def _has_stride(experiment: Experiment) -> bool:
    return experiment.model == "resnet"


def _has_square_kernel(experiment: Experiment) -> bool:
    sizes = experiment.hidden_sizes
    return experiment.model in TRANSFORMERS or (
        experiment.model in ("mlp", "cnn")
        and any(a == b for a, b in itertools.pairwise(sizes))
    )


def _normalizes(kind: str):
    models = {"batch": ("resnet",), "layer": TRANSFORMERS}[kind]
    return lambda e: e.normalization == kind or e.model in models


def _is(*models: str):
    return lambda e: e.model in models


def _uses_gelu(experiment: Experiment) -> bool:
    return experiment.model in TRANSFORMERS or (
        experiment.activation == "gelu" and experiment.model in ("mlp", "cnn")
    )


def _tanh_gelu(experiment: Experiment) -> Experiment:
    return experiment.replace(
        activation="gelu_tanh"
        if experiment.activation == "gelu"
        else experiment.activation
    )


def _other_pool(experiment: Experiment) -> Experiment:
    return experiment.replace(pool="average" if experiment.pool == "max" else "max")


SWITCHES = [
    Switch(
        "leaky_slope",
        (GRADIENTS,),
        f"leaky_relu's slope is {OTHER_SLOPE}",
        "torch 0.01, tf.nn.leaky_relu 0.2",
        lambda e: e.activation == "leaky_relu" and e.model in ("mlp", "cnn"),
        experiment=lambda e: e.replace(leaky_relu_alpha=OTHER_SLOPE),
    ),
    Switch(
        "gelu_tanh",
        (GRADIENTS,),
        "GELU is its tanh approximation",
        "MISMATCHES L7; jax.nn.gelu's default",
        _uses_gelu,
        experiment=_tanh_gelu,
        patches=(Patch(transformer, "gelu", lambda plain: activations.gelu_tanh),),
    ),
    Switch(
        "batch_norm_momentum_flipped",
        (GRADIENTS,),
        "running statistics keep a tenth instead of moving by a tenth",
        "MISMATCHES L1; flax 0.9 is torch 0.1",
        _normalizes("batch"),
        patches=(Patch(normalization, "MOMENTUM", lambda plain: 1 - plain),),
    ),
    Switch(
        "batch_norm_biased_variance",
        (GRADIENTS,),
        "the running variance is the biased one",
        "MISMATCHES L1; flax.linen.BatchNorm",
        _normalizes("batch"),
        patches=(
            Patch(normalization, "unbiased", lambda plain: lambda var, count: var),
        ),
    ),
    Switch(
        "batch_norm_by_running",
        (GRADIENTS,),
        "training normalizes by the running statistics",
        "module.eval() in training; flax use_running_average=True",
        _normalizes("batch"),
        patches=tuple(
            Patch(module, "BatchNorm", _by_running_statistics)
            for module in (normalization, resnet)
        ),
    ),
    Switch(
        "batch_norm_epsilon",
        (GRADIENTS,),
        f"batch normalization's eps is {KERAS_BATCH_NORM_EPSILON:g}",
        "Keras BatchNormalization 1e-3; torch and flax 1e-5",
        _normalizes("batch"),
        patches=(
            Patch(normalization, "normalize", _with_epsilon(KERAS_BATCH_NORM_EPSILON)),
        ),
    ),
    Switch(
        "layer_norm_epsilon",
        (GRADIENTS,),
        f"layer normalization's eps is {FLAX_LAYER_NORM_EPSILON:g}",
        "MISMATCHES L2; flax.linen.LayerNorm",
        _normalizes("layer"),
        patches=(
            Patch(normalization, "normalize", _with_epsilon(FLAX_LAYER_NORM_EPSILON)),
        ),
    ),
    Switch(
        "lstm_gate_order",
        (GRADIENTS,),
        "the gates are read in the order i, f, o, g",
        "MISMATCHES L3; torch i, f, g, o",
        _is("lstm"),
        patches=(Patch(recurrence.CELLS, "lstm", _permuted((0, 1, 3, 2))),),
    ),
    Switch(
        "lstm_forget_bias",
        (GRADIENTS,),
        "the forget gate has a bias of 1 on top",
        "Jozefowicz et al. 2015; tf.keras unit_forget_bias",
        _is("lstm"),
        patches=(
            Patch(recurrence.CELLS, "lstm", _permuted((0, 1, 2, 3), forget_bias=1.0)),
        ),
    ),
    Switch(
        "gru_update_gate_flipped",
        (GRADIENTS,),
        "h = z n + (1 - z) h: the update gate weighs the new state",
        "Cho et al. 2014 and Chung et al. 2014 differ in it",
        _is("gru"),
        patches=(
            Patch(recurrence.CELLS, "gru", _permuted((0, 1, 2), signs=(1, -1, 1))),
        ),
    ),
    Switch(
        "one_recurrent_bias",
        (GRADIENTS,),
        "a recurrent layer adds its input bias alone",
        "MISMATCHES L3; flax LSTMCell and GRUCell have one bias",
        _is(*RECURRENT),
        patches=(Patch(rnn, "recur", _without_recurrent_bias),),
    ),
    Switch(
        "flatten_order",
        (GRADIENTS,),
        "images are flattened channels first",
        "MISMATCHES L5; torch's NCHW",
        lambda e: e.model == "cnn" and e.channels[-1] > 1,
        params=_channels_first,
    ),
    Switch(
        "kernel_transposed",
        (GRADIENTS,),
        "square Dense kernels are read transposed",
        "torch's [out, in] copied as flax's [in, out]",
        _has_square_kernel,
        params=_transposed,
    ),
    Switch(
        "kernel_flipped",
        (GRADIENTS,),
        "convolutions flip their kernel",
        "scipy.signal.convolve2d; torch and jax do not",
        _is("cnn", "resnet"),
        params=_flipped,
    ),
    Switch(
        "padding_asymmetric",
        (GRADIENTS,),
        "stride-2 convolutions pad at the end alone",
        "MISMATCHES L5; flax padding='SAME'",
        _has_stride,
        patches=(Patch(convolution, "conv", _padded_as_same),),
    ),
    Switch(
        "pooling_kind",
        (GRADIENTS,),
        "pooling takes the mean where it takes the largest, or the reverse",
        "LeCun et al. 1998 average",
        _is("cnn"),
        experiment=_other_pool,
    ),
    Switch(
        "causal_mask_off_by_one",
        (GRADIENTS,),
        "a position sees the next one",
        "tril(k=1)",
        _is("transformer"),
        patches=(Patch(attention, "visible", _visible_from(1)),),
    ),
    Switch(
        "causal_mask_missing",
        (GRADIENTS,),
        "every position sees all",
        "is_causal=False",
        _is("transformer"),
        patches=(
            Patch(
                attention,
                "visible",
                lambda plain: lambda steps: jnp.ones((1, 1, steps, steps), bool),
            ),
        ),
    ),
    Switch(
        "attention_unscaled",
        (GRADIENTS,),
        "scores are not divided by the root of a head's width",
        "Vaswani et al. 2017, section 3.2.1",
        _is(*TRANSFORMERS),
        patches=(Patch(attention, "score_scale", lambda plain: lambda features: 1.0),),
    ),
    Switch(
        "embedding_scaled",
        (GRADIENTS,),
        "token embeddings are multiplied by the root of the width",
        "Vaswani et al. 2017, section 3.4",
        _is(*TRANSFORMERS),
        params=_multiplied("embedding", lambda e: e.width**0.5),
    ),
    Switch(
        "positions_missing",
        (GRADIENTS,),
        "no positions are added",
        "a table that is built and not used",
        _is(*TRANSFORMERS),
        params=_multiplied("positions", lambda e: 0.0),
    ),
]

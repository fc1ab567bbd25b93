"""Switches on layers: how they compute, and how they read their parameters."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import activations
from jaxnn.experiment.catalogue import RECURRENT, TRANSFORMERS
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    activates,
    flattens_channels,
    has_gelu,
    has_square_kernel,
    is_model,
    normalizes,
)
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


# Hooks `params`: parameters as the recording stack's model read them.


def _transposed(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    del experiment
    # Only a square kernel can be read transposed without an error of shapes.
    is_kernel = name.endswith("/kernel") and array.ndim == 2
    if not is_kernel or array.shape[0] != array.shape[1]:
        return array
    return array.T


def _flipped(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    del experiment
    is_convolution = name.endswith("/kernel") and array.ndim == 4
    return array[::-1, ::-1] if is_convolution else array


def _channels_first(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
    """Permutes the rows of the first dense layer, as if images were flattened NCHW."""
    first_dense = "hidden_0/kernel" if experiment.hidden_sizes else "output/kernel"
    if name != first_dense:
        return array
    rows = np.arange(len(array)).reshape(experiment.channels[-1], -1)
    return array[rows.T.ravel()]


def _multiplied(layer: str, factor: Callable[[Experiment], float]):
    """Multiplies the parameters of a layer by a factor."""

    def change(name: str, array: jax.Array, experiment: Experiment) -> jax.Array:
        if not name.startswith(f"{layer}/"):
            return array
        return array * np.asarray(factor(experiment), array.dtype)

    return change


# Patches: plain function -> the function as the recording stack had it.


def _with_epsilon(epsilon: float):
    def make(plain):
        def normalize(x, mean, var, scale, bias):
            # The plain function adds its own epsilon to the variance.
            moved = var + (epsilon - normalization.EPSILON)
            return plain(x, mean, moved, scale, bias)

        return normalize

    return make


def _by_running_statistics(plain):
    """Builds BatchNorm layers that run as in evaluation and update nothing."""

    def build(**settings):
        layer = plain(**settings)
        return lambda x, masks=None: layer(x, None)

    return build


def _permuted(
    order: tuple[int, ...],
    signs: tuple[int, ...] | None = None,
    forget_bias: float = 0.0,
):
    """A cell that reads its gates in another order, negated or with a forget bias.

    Args:
      order: place of each gate in the kernels.
      signs: factor of each gate, 1 or -1; None for all 1.
      forget_bias: added to the second gate.
    """

    def make(plain: Cell) -> Cell:
        gates = plain.gates
        sign = signs or (1,) * gates
        inverse = tuple(np.argsort(order))

        def permute(x: jax.Array) -> jax.Array:
            parts = jnp.split(x, gates, axis=-1)
            return jnp.concatenate([parts[i] * s for i, s in zip(order, sign)], axis=-1)

        # Cells have a backward pass of their own, so the transposed permutation has to
        # be applied to its gradients by hand.
        def permute_back(x: jax.Array) -> jax.Array:
            parts = [part * s for part, s in zip(jnp.split(x, gates, axis=-1), sign)]
            return jnp.concatenate([parts[i] for i in inverse], axis=-1)

        def forward(from_input, from_hidden, state):
            from_input = permute(from_input)
            zeros = jnp.zeros_like(from_input).reshape(len(from_input), gates, -1)
            bias = zeros.at[:, 1].set(forget_bias).reshape(from_input.shape)
            return plain.forward(from_input + bias, permute(from_hidden), state)

        def backward(saved, grads):
            from_input, from_hidden, state = plain.backward(saved, grads)
            return permute_back(from_input), permute_back(from_hidden), state

        return plain._replace(forward=forward, backward=backward)

    return make


def _without_recurrent_bias(plain):
    def recur(cell, from_input, kernel, bias):
        return plain(cell, from_input, kernel, jnp.zeros_like(bias))

    return recur


def _padded_as_same(plain):
    """Pads strided convolutions as TensorFlow's "SAME": more at the end than before."""

    def conv(x, kernel, stride=1, padding=0, algorithm="auto"):
        if stride == 1 or not padding:
            return plain(x, kernel, stride, padding, algorithm)
        rows, columns = (
            _same(length, size, stride)
            for length, size in zip(x.shape[1:3], kernel.shape[:2])
        )
        padded = jnp.pad(x, [(0, 0), rows, columns, (0, 0)])
        return plain(padded, kernel, stride, 0, algorithm)

    return conv


def _same(length: int, size: int, stride: int) -> tuple[int, int]:
    """Returns zeros before and after, for an output of ceil(length / stride)."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _visible_from(offset: int):
    """A mask under which a position sees others up to `offset` places later."""

    def make(plain):
        del plain
        return lambda steps: jnp.tril(jnp.ones((1, 1, steps, steps), bool), k=offset)

    return make


# Hooks `experiment`: flags as the recording stack had them.


def _tanh_gelu(experiment: Experiment) -> Experiment:
    # A transformer's GELU is no flag; a patch changes it.
    if experiment.activation != "gelu":
        return experiment
    return experiment.replace(activation="gelu_tanh")


def _other_pool(experiment: Experiment) -> Experiment:
    return experiment.replace(pool="average" if experiment.pool == "max" else "max")


SWITCHES = [
    Switch(
        "leaky_slope",
        (GRADIENTS,),
        f"leaky_relu's slope is {OTHER_SLOPE}",
        "torch 0.01, tf.nn.leaky_relu 0.2",
        activates("leaky_relu"),
        experiment=lambda e: e.replace(leaky_relu_alpha=OTHER_SLOPE),
    ),
    Switch(
        "gelu_tanh",
        (GRADIENTS,),
        "GELU is its tanh approximation",
        "MISMATCHES L7; jax.nn.gelu's default",
        has_gelu,
        experiment=_tanh_gelu,
        patches=(Patch(transformer, "gelu", lambda plain: activations.gelu_tanh),),
    ),
    Switch(
        "batch_norm_momentum_flipped",
        (GRADIENTS,),
        "running statistics keep a tenth instead of moving by a tenth",
        "MISMATCHES L1; flax 0.9 is torch 0.1",
        normalizes("batch"),
        patches=(Patch(normalization, "MOMENTUM", lambda plain: 1 - plain),),
    ),
    Switch(
        "batch_norm_biased_variance",
        (GRADIENTS,),
        "the running variance is the biased one",
        "MISMATCHES L1; flax.linen.BatchNorm",
        normalizes("batch"),
        patches=(
            Patch(normalization, "unbiased", lambda plain: lambda var, count: var),
        ),
    ),
    Switch(
        "batch_norm_by_running",
        (GRADIENTS,),
        "training normalizes by the running statistics",
        "module.eval() in training; flax use_running_average=True",
        normalizes("batch"),
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
        normalizes("batch"),
        patches=(
            Patch(normalization, "normalize", _with_epsilon(KERAS_BATCH_NORM_EPSILON)),
        ),
    ),
    Switch(
        "layer_norm_epsilon",
        (GRADIENTS,),
        f"layer normalization's eps is {FLAX_LAYER_NORM_EPSILON:g}",
        "MISMATCHES L2; flax.linen.LayerNorm",
        normalizes("layer"),
        patches=(
            Patch(normalization, "normalize", _with_epsilon(FLAX_LAYER_NORM_EPSILON)),
        ),
    ),
    Switch(
        "lstm_gate_order",
        (GRADIENTS,),
        "the gates are read in the order i, f, o, g",
        "MISMATCHES L3; torch i, f, g, o",
        is_model("lstm"),
        patches=(Patch(recurrence.CELLS, "lstm", _permuted((0, 1, 3, 2))),),
    ),
    Switch(
        "lstm_forget_bias",
        (GRADIENTS,),
        "the forget gate has a bias of 1 on top",
        "Jozefowicz et al. 2015; tf.keras unit_forget_bias",
        is_model("lstm"),
        patches=(
            Patch(recurrence.CELLS, "lstm", _permuted((0, 1, 2, 3), forget_bias=1.0)),
        ),
    ),
    Switch(
        "gru_update_gate_flipped",
        (GRADIENTS,),
        "h = z n + (1 - z) h: the update gate weighs the new state",
        "Cho et al. 2014 and Chung et al. 2014 differ in it",
        is_model("gru"),
        patches=(
            Patch(recurrence.CELLS, "gru", _permuted((0, 1, 2), signs=(1, -1, 1))),
        ),
    ),
    Switch(
        "one_recurrent_bias",
        (GRADIENTS,),
        "a recurrent layer adds its input bias alone",
        "MISMATCHES L3; flax LSTMCell and GRUCell have one bias",
        is_model(*RECURRENT),
        patches=(Patch(rnn, "recur", _without_recurrent_bias),),
    ),
    Switch(
        "flatten_order",
        (GRADIENTS,),
        "images are flattened channels first",
        "MISMATCHES L5; torch's NCHW",
        flattens_channels,
        params=_channels_first,
    ),
    Switch(
        "kernel_transposed",
        (GRADIENTS,),
        "square Dense kernels are read transposed",
        "torch's [out, in] copied as flax's [in, out]",
        has_square_kernel,
        params=_transposed,
    ),
    Switch(
        "kernel_flipped",
        (GRADIENTS,),
        "convolutions flip their kernel",
        "scipy.signal.convolve2d; torch and jax do not",
        is_model("cnn", "resnet"),
        params=_flipped,
    ),
    Switch(
        "padding_asymmetric",
        (GRADIENTS,),
        "stride-2 convolutions pad at the end alone",
        "MISMATCHES L5; flax padding='SAME'",
        is_model("resnet"),
        patches=(Patch(convolution, "conv", _padded_as_same),),
    ),
    Switch(
        "pooling_kind",
        (GRADIENTS,),
        "pooling takes the mean where it takes the largest, or the reverse",
        "LeCun et al. 1998 average",
        is_model("cnn"),
        experiment=_other_pool,
    ),
    Switch(
        "causal_mask_off_by_one",
        (GRADIENTS,),
        "a position sees the next one",
        "tril(k=1)",
        is_model("transformer"),
        patches=(Patch(attention, "visible", _visible_from(1)),),
    ),
    Switch(
        "causal_mask_missing",
        (GRADIENTS,),
        "every position sees all",
        "is_causal=False",
        is_model("transformer"),
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
        is_model(*TRANSFORMERS),
        patches=(Patch(attention, "score_scale", lambda plain: lambda features: 1.0),),
    ),
    Switch(
        "embedding_scaled",
        (GRADIENTS,),
        "token embeddings are multiplied by the root of the width",
        "Vaswani et al. 2017, section 3.4",
        is_model(*TRANSFORMERS),
        params=_multiplied("embedding", lambda e: e.width**0.5),
    ),
    Switch(
        "positions_missing",
        (GRADIENTS,),
        "no positions are added",
        "a table that is built and not used",
        is_model(*TRANSFORMERS),
        params=_multiplied("positions", lambda e: 0.0),
    ),
]

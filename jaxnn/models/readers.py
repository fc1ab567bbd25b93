"""Our language models as readers: what they compute for a token is kept for later ones.

The formulas are those of `transformer.py` and `rnn.py`, outside training, for one text;
`tests/jaxnn/models/readers_test.py` holds them to it.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxnn.activations import gelu
from jaxnn.experiment.flags.config import Experiment
from jaxnn.models.attention import score_scale
from jaxnn.models.normalization import LayerNorm
from jaxnn.models.recurrence import CELLS, State
from jaxnn.models.rnn import Recurrent
from jaxnn.models.transformer import Transformer
from jaxnn.precision import POLICIES, at_least_float32, cast
from jaxnn.reading import Reader

Params = Any
Kept = tuple[Array, Array]
"""Keys and values of a block, [context, heads, features] each."""


def build(experiment: Experiment, model: nn.Module, params: Params) -> Reader | None:
    """Returns a language model as a reader, in the compute dtype.

    Args:
      experiment: names the precision.
      model: as from `models.build`.
      params: of the model, NumPy arrays.

    Returns:
      The reader, or None if the network is not one of ours.
    """
    dtype = POLICIES[experiment.precision].compute
    params = cast(params, dtype)
    if isinstance(model, Recurrent):
        zeros = [np.zeros((1, size), dtype) for size in model.hidden_sizes]
        states = [(zero,) * CELLS[model.cell].states for zero in zeros]
        return Reader(_partial(read_recurrent, model, params), states, None)
    if isinstance(model, Transformer) and model.causal:
        heads = (model.num_heads, model.width // model.num_heads)
        empty = np.zeros((model.max_length, *heads), dtype)
        kept = [(empty, empty)] * model.num_layers
        return Reader(_partial(read_transformer, model, params), kept, model.max_length)
    return None


def read_transformer(
    model: Transformer, params: Params, kept: list[Kept], token: Array, position: Array
) -> tuple[Array, list[Kept]]:
    """Reads one token after those whose keys and values are kept.

    Args:
      model: causal decoder.
      params: its parameters.
      kept: of each block, filled up to `position`.
      token: () int32.
      position: () int32, of the token.

    Returns:
      [characters] logits, and the keys and values with those of the token.
    """
    x = params["embedding"]["embedding"][token]
    x = (x + params["positions"]["embedding"][position])[None]
    grown = []
    for number, of_block in enumerate(kept):
        block = params[f"block_{number}"]
        y = _dense(block["qkv"], _norm(block["norm_attention"], x))
        y, of_block = attend(y, of_block, position)
        x = x + _dense(block["attention_output"], y)
        y = _dense(block["mlp_in"], _norm(block["norm_mlp"], x))
        x = x + _dense(block["mlp_out"], gelu(y))
        grown.append(of_block)
    return _dense(params["output"], _norm(params["norm_output"], x))[0], grown


def attend(qkv: Array, kept: Kept, position: Array) -> tuple[Array, Kept]:
    """Attention of one position to itself and to those before it.

    Args:
      qkv: [1, 3 * width], as of `attention.self_attention`.
      kept: keys and values of the positions before, filled up to `position`.
      position: () int32.

    Returns:
      [1, width], and keys and values with the new ones.
    """
    context, heads, features = kept[0].shape
    q, k, v = qkv.reshape(3, 1, heads, features)
    keys, values = (
        lax.dynamic_update_slice_in_dim(old, new, position, 0)
        for old, new in zip(kept, (k, v))
    )
    # Sums of products: to compile a matrix product of one row takes five times longer.
    scaled = at_least_float32(q * score_scale(features))
    scores = jnp.sum(scaled * at_least_float32(keys), axis=-1)
    is_read = jnp.arange(context, dtype=jnp.int32) <= position
    scores = jnp.where(is_read[:, None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=0).astype(values.dtype)
    mixed = jnp.sum(weights[..., None] * values, axis=0)
    return mixed.reshape(1, heads * features), (keys, values)


def read_recurrent(
    model: Recurrent, params: Params, states: list[State], token: Array, position: Array
) -> tuple[Array, list[State]]:
    """Reads one token from the states after those before; its context has no end.

    Args:
      model: recurrent network.
      params: its parameters.
      states: of each layer, arrays [1, size].
      token: () int32.
      position: not used.

    Returns:
      [characters] logits, and the states after the token.
    """
    del position
    cell = CELLS[model.cell]
    x = params["embedding"]["embedding"][token][None]
    after = []
    for number, state in enumerate(states):
        layer = params[f"layer_{number}"]
        from_input = x @ layer["input_kernel"] + layer["input_bias"][None]
        from_hidden = state[0] @ layer["recurrent_kernel"]
        from_hidden = from_hidden + layer["recurrent_bias"][None]
        state, _ = cell.forward(from_input, from_hidden, state)
        x = state[0]
        after.append(state)
    return _dense(params["output"], x)[0], after


def _partial(function: Any, model: nn.Module, params: Params) -> Any:
    """Binds a network; a pytree of its parameters."""
    return jax.tree_util.Partial(functools.partial(function, model), params)


def _dense(params: Params, x: Array) -> Array:
    return x @ params["kernel"] + params["bias"][None]


def _norm(params: Params, x: Array) -> Array:
    normalized: Any = LayerNorm().apply({"params": params}, x)
    return normalized

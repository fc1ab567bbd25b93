"""The perceptron as a function of parameters and inputs, without dropout."""

import functools

import jax
import jax.numpy as jnp

from tests.parity.own.ports import layers, nnx_mlp

torch_model = functools.partial(nnx_mlp.torch_model, dropout=0.0)
batch, training_loss = nnx_mlp.batch, nnx_mlp.training_loss
loss, convert = nnx_mlp.loss, nnx_mlp.convert
FAULTS = nnx_mlp.FAULTS


def model(params: dict, x: jax.Array) -> jax.Array:
    """Returns logits, [batch, classes], of x, [batch, features]."""
    hidden = jax.nn.relu(norm(params["norm"], linear(params["hidden"], x)))
    return linear(params["out"], hidden)


def linear(params: dict, x: jax.Array) -> jax.Array:
    """Returns x, [batch, in], through a kernel, [in, out], and a bias."""
    return x @ params["kernel"] + params["bias"][None]


def norm(params: dict, x: jax.Array) -> jax.Array:
    """Returns rows of x, [batch, units], normalized, scaled and moved."""
    centred = layers.wide(x) - layers.wide(x).mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + nnx_mlp.EPSILON)
    scale, bias = (layers.wide(params[name])[None] for name in ("scale", "bias"))
    return (normal * scale + bias).astype(x.dtype)

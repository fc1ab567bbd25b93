"""The residual network as torch's autocast runs it: products in bfloat16, the loss and
the statistics in float32."""

import jax
import jax.numpy as jnp

from tests.parity.own.ports import layers, resnet

torch_model, batch, labels = resnet.torch_model, resnet.batch, resnet.labels
training_loss = resnet.training_loss
model = resnet.ResNet(dtype=jnp.bfloat16)
convert, convert_stats = resnet.convert, resnet.convert_stats
FAULTS = resnet.FAULTS


def loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of labels, in float32."""
    return layers.cross_entropy(layers.wide(outputs), labels)

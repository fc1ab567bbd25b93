"""A network of one's own, from `--model=FILE.py:NAME`. Twin of torch_ref/models/own.py.

What such a file holds stands in jaxnn/experiment/own_model.py.
"""

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from jaxnn.activations import Activation
from jaxnn.dropout import MaskSource, dropout
from jaxnn.experiment import own_model
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment


class Own(nn.Module):
    """Calls a network of one's own as ours are called; adds nothing to its names.

    Attributes:
      net: the network.
    """

    net: nn.Module

    def setup(self):
        """Puts the network's parameters where they would be without this module."""
        nn.share_scope(self, self.net)

    def __call__(self, inputs: Array, masks: MaskSource | None = None) -> Array:
        """[batch, ...] -> [batch, num_outputs] or [batch, steps, num_outputs].

        Args:
          inputs: examples.
          masks: training context, or None outside training.
        """
        facts = {"train": masks is not None, "masks": masks}
        call = type(self.net).__call__
        more = {name: facts[name] for name in facts if own_model.takes(call, name)}
        with nn.intercept_methods(_masked(masks)):
            return self.net(inputs, **more)


def build(
    experiment: Experiment, signature: Signature, activation: Activation
) -> nn.Module:
    """Returns the network of `--model=FILE.py:NAME`.

    Args:
      experiment: model flags.
      signature: shapes of the inputs and outputs of the data.
      activation: function of `--activation`.

    Raises:
      UserError: the file or its class is no network for these data.
    """
    make = own_model.load(experiment.model)
    net = own_model.construct(make, experiment, signature, activation)
    if not isinstance(net, nn.Module):
        raise UserError(
            f"--model: {make.__name__} is no flax.linen.Module; derive it from that"
        )
    model = Own(net)
    outputs = own_model.tried(experiment.model, lambda: _outputs(model, signature))
    own_model.check_outputs(experiment.model, make.__name__, outputs.shape, signature)
    return model


def _outputs(model: nn.Module, signature: Signature) -> jax.ShapeDtypeStruct:
    """Returns the shape of the outputs of one example; computes nothing."""
    example = jax.ShapeDtypeStruct((1, *signature.input_shape), signature.input_dtype)
    key = jax.random.key(0)
    outputs, _ = jax.eval_shape(model.init_with_output, key, example)
    return outputs


def _masked(masks: MaskSource | None) -> Callable[..., Any]:
    """Returns an interceptor that gives nn.Dropout the masks of both stacks."""
    numbers = itertools.count()

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, nn.Dropout) or context.method_name != "__call__":
            return call(*args, **kwargs)
        if layer.broadcast_dims:
            raise UserError("--model: nn.Dropout with broadcast_dims has no twin")
        number = next(numbers)
        named = inspect.signature(nn.Dropout.__call__).bind(layer, *args, **kwargs)
        is_off = named.arguments.get("deterministic", layer.deterministic)
        rows = named.arguments["inputs"]
        return dropout(rows, layer.rate, number, None if is_off else masks)

    return intercept

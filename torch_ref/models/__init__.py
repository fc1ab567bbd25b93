"""Networks by name. Twin of jaxnn/models."""

import math
from collections.abc import Callable

from torch import nn

from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Signature
from torch_ref import activations
from torch_ref.initializers import INITIALIZERS
from torch_ref.models.linear import Linear
from torch_ref.models.mlp import MLP


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """The experiment's network, initialized: `module(inputs, masks) -> outputs`.

    Args:
      experiment: its model flags.
      signature: shapes of the data's inputs and outputs.

    Raises:
      UserError: a network that only jaxnn has.
    """
    if experiment.model not in MODELS:
        raise UserError(f"--model: {experiment.model} is not in torch_ref yet; there are {', '.join(MODELS)}")
    model = MODELS[experiment.model](experiment, signature)
    start = INITIALIZERS[experiment.initializer]
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            start.kernel(layer.weight)
            start.bias(layer.in_features)(layer.bias)
    return model


def _linear(experiment: Experiment, signature: Signature) -> nn.Module:
    return Linear(math.prod(signature.input_shape), signature.num_outputs)


def _mlp(experiment: Experiment, signature: Signature) -> nn.Module:
    return MLP(math.prod(signature.input_shape), experiment.hidden_sizes, signature.num_outputs,
               _activation(experiment), experiment.dropout_rates)


def _activation(experiment: Experiment) -> activations.Activation:
    return activations.build(experiment.activation, experiment.leaky_relu_alpha)


MODELS: dict[str, Callable[[Experiment, Signature], nn.Module]] = {
    "linear": _linear, "perceptron": _linear, "logistic": _linear, "mlp": _mlp,
}

"""Networks by name. Twin of jaxnn/models."""

from collections.abc import Callable

from torch import nn

from jaxnn.experiment.config import Experiment
from torch_ref.activations import ACTIVATIONS
from torch_ref.initializers import INITIALIZERS
from torch_ref.models.linear import Linear
from torch_ref.models.mlp import MLP


def build(experiment: Experiment, num_inputs: int, num_outputs: int) -> nn.Module:
    """The experiment's network, initialized: `module(inputs, masks) -> outputs`."""
    model = MODELS[experiment.model](experiment, num_inputs, num_outputs)
    start = INITIALIZERS[experiment.initializer]
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            start.kernel(layer.weight)
            start.bias(layer.in_features)(layer.bias)
    return model


def _linear(experiment: Experiment, num_inputs: int, num_outputs: int) -> nn.Module:
    return Linear(num_inputs, num_outputs)


def _mlp(experiment: Experiment, num_inputs: int, num_outputs: int) -> nn.Module:
    return MLP(num_inputs, experiment.hidden_sizes, num_outputs, ACTIVATIONS[experiment.activation],
               experiment.dropout_rates)


MODELS: dict[str, Callable[[Experiment, int, int], nn.Module]] = {"linear": _linear, "mlp": _mlp}

"""Networks by name. Twin of torch_ref/models."""

from collections.abc import Callable

import flax.linen as nn

from jaxnn.activations import ACTIVATIONS
from jaxnn.experiment.config import Experiment
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.linear import Linear
from jaxnn.models.mlp import MLP


def build(experiment: Experiment, num_outputs: int) -> nn.Module:
    """The experiment's network: `module.apply(variables, inputs, masks) -> outputs`."""
    return MODELS[experiment.model](experiment, num_outputs)


def _linear(experiment: Experiment, num_outputs: int) -> nn.Module:
    return Linear(num_outputs, INITIALIZERS[experiment.initializer])


def _mlp(experiment: Experiment, num_outputs: int) -> nn.Module:
    return MLP(experiment.hidden_sizes, num_outputs, ACTIVATIONS[experiment.activation],
               experiment.dropout_rates, INITIALIZERS[experiment.initializer])


MODELS: dict[str, Callable[[Experiment, int], nn.Module]] = {"linear": _linear, "mlp": _mlp}

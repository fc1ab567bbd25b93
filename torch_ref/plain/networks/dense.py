"""Linear network and multi-layer perceptron, as sequences of torch's layers."""

import collections
import math
from collections.abc import Callable

from torch import Tensor, nn

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref.plain import activations


class Apply(nn.Module):
    """A function as a layer.

    Args:
      function: tensor -> tensor.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> what the function makes of it."""
        return self.function(x)


def linear(experiment: Experiment, signature: Signature) -> nn.Sequential:
    """One dense layer of the flattened example."""
    size = math.prod(signature.input_shape)
    output = nn.Linear(size, signature.num_outputs, experiment.use_bias)
    return named({"flatten": nn.Flatten(), "output": output})


def mlp(experiment: Experiment, signature: Signature) -> nn.Sequential:
    """Hidden layers of the flattened example, then one dense layer."""
    size = math.prod(signature.input_shape)
    hidden = hidden_layers(experiment, size, "norm")
    last = experiment.hidden_sizes[-1]
    output = nn.Linear(last, signature.num_outputs, experiment.use_bias)
    layers = {"flatten": nn.Flatten(), **hidden, "output": output}
    return named(layers, Residual if experiment.residual else nn.Sequential)


class Residual(nn.Sequential):
    """Layers in turn; with `--residual` hidden layers add what they were given.

    A hidden layer ends before the next dense layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ...] -> [batch, outputs]."""
        given = None
        for layer in self:
            if isinstance(layer, nn.Linear):
                x = x + given if given is not None and x.shape == given.shape else x
                given = x
            x = layer(x)
        return x


def hidden_layers(
    experiment: Experiment, num_inputs: int, norm_name: str
) -> dict[str, nn.Module]:
    """Returns dense layer, normalization, activation and dropout of each hidden layer.

    Args:
      experiment: sizes, normalization, activation and rates.
      num_inputs: width of the first layer's input.
      norm_name: name of the normalizations, before their numbers.
    """
    layers: dict[str, nn.Module] = {}
    widths = (num_inputs, *experiment.hidden_sizes)
    for number, size in enumerate(experiment.hidden_sizes):
        dense = nn.Linear(widths[number], size, experiment.use_bias)
        layers[f"hidden_{number}"] = dense
        if experiment.normalization != "none":
            norm = NORMALIZATIONS[experiment.normalization](size)
            layers[f"{norm_name}_{number}"] = norm
        layers[f"activation_{number}"] = activation(experiment)
        if experiment.dropout_rates and experiment.dropout_rates[number]:
            layers[f"dropout_{number}"] = nn.Dropout(experiment.dropout_rates[number])
    return layers


def activation(experiment: Experiment) -> nn.Module:
    """Returns `--activation` as a layer."""
    return Apply(activations.build(experiment))


def named(
    layers: dict[str, nn.Module], kind: type[nn.Sequential] = nn.Sequential
) -> nn.Sequential:
    """Returns layers one after the other, under their names."""
    return kind(collections.OrderedDict(layers))


NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}

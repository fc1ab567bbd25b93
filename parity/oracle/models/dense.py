"""Linear model and multi-layer perceptron."""

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import activations
from parity.oracle.dropout import dropout
from parity.oracle.initializers import INITIALIZERS
from parity.oracle.layers import dense, normalize
from parity.oracle.operations import reshape
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor


def linear(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor
) -> Tensor:
    """One Dense layer `output`: [batch, ...] -> [batch, outputs]."""
    initializer = INITIALIZERS[experiment.initializer]
    size, x = signature.num_outputs, _flat(x)
    return dense(scope, "output", size, x, initializer, experiment.use_bias)


def mlp(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor
) -> Tensor:
    """Hidden layers, then a Dense layer `output`: [batch, ...] -> [batch, outputs]."""
    return hide(scope, experiment, signature, x, norms="norm")


def hide(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor, norms: str
) -> Tensor:
    """a_l = dropout(activation(normalize(a_{l-1} W_l + b_l))), then a Dense layer.

    With `--residual` plus a_{l-1}, where both are as wide.

    Args:
      scope: parameters, running statistics and masks.
      experiment: model flags; one hidden layer per entry of `--hidden_sizes`.
      signature: shapes of the inputs and outputs.
      x: [batch, ...].
      norms: prefix of the names of the normalization layers.
    """
    initializer = INITIALIZERS[experiment.initializer]
    activation = activations.build(experiment.activation, experiment.leaky_relu_alpha)
    rates = experiment.dropout_rates

    x = _flat(x)
    for layer, size in enumerate(experiment.hidden_sizes):
        given = x
        x = dense(scope, f"hidden_{layer}", size, x, initializer, experiment.use_bias)
        x = normalize(experiment.normalization, scope, f"{norms}_{layer}", x)
        x = activation(x)
        x = dropout(x, rates[layer] if rates else 0.0, layer, scope.masks)
        x = x + given if experiment.residual and x.shape == given.shape else x
    size = signature.num_outputs
    return dense(scope, "output", size, x, initializer, experiment.use_bias)


def _flat(x: Tensor) -> Tensor:
    return reshape(x, (x.shape[0], -1))

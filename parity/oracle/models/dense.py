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
    return dense(
        scope,
        "output",
        signature.num_outputs,
        _flat(x),
        INITIALIZERS[experiment.initializer],
    )


def mlp(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor
) -> Tensor:
    """Hidden layers of `--hidden_sizes`, then `output`: [batch, ...] -> [batch,
    outputs]."""
    return hide(scope, experiment, signature, x, norms="norm")


def hide(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor, norms: str
) -> Tensor:
    """a_l = dropout(activation(normalize(a_{l-1} W_l + b_l))) for each hidden layer,
    then one Dense layer.

    Args:
      scope, experiment, signature: of the pass.
      x: [batch, ...].
      norms: what the normalizations' names begin with.
    """
    start, rates = INITIALIZERS[experiment.initializer], experiment.dropout_rates
    activation = activations.build(experiment.activation, experiment.leaky_relu_alpha)
    x = _flat(x)
    for layer, size in enumerate(experiment.hidden_sizes):
        x = dense(scope, f"hidden_{layer}", size, x, start)
        x = activation(
            normalize(experiment.normalization, scope, f"{norms}_{layer}", x)
        )
        x = dropout(x, rates[layer] if rates else 0.0, layer, scope.masks)
    return dense(scope, "output", signature.num_outputs, x, start)


def _flat(x: Tensor) -> Tensor:
    return reshape(x, (x.shape[0], -1))

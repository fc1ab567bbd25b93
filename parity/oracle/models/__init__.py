"""Networks by name, with the parameter names and layouts of jaxnn/models.

A network is one function (scope, experiment, signature, inputs) -> outputs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnn.experiment.catalogue import MODELS, is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.models import cnn, dense, resnet, rnn, transformer
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor, lift

Network = Callable[[Scope, Experiment, Signature, Any], Tensor]


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, inputs: np.ndarray
) -> Tensor:
    """Computes the outputs of a network.

    Args:
      scope: parameters, running statistics and masks.
      experiment: model flags.
      signature: shapes of the inputs and outputs.
      inputs: [batch, ...] numbers or integer tokens.
    """
    if is_own(experiment.model):
        raise UserError(
            "--model: the oracle knows the networks of the catalogue, not one of your "
            "own"
        )
    # Tokens stay a NumPy array: they index an embedding and have no gradient.
    x = inputs if signature.num_tokens else lift(inputs)
    network = FAMILIES[MODELS[experiment.model].family]
    return network(scope, experiment, signature, x)


def initial(
    experiment: Experiment, signature: Signature
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns fresh parameters and running statistics by name, float64.

    The values of a parameter depend on the experiment's seed and its name alone.
    """
    # As in flax, one forward pass creates every parameter. int32 zeros serve as tokens
    # and as numbers.
    scope = Scope({}, {}, seed=experiment.seed)
    inputs = np.zeros((1, *signature.input_shape), np.int32)
    forward(scope, experiment, signature, inputs)

    params = {name: tensor.value for name, tensor in sorted(scope.params.items())}
    return params, scope.batch_stats


FAMILIES: dict[str, Network] = {
    "linear": dense.linear,
    "mlp": dense.mlp,
    "cnn": cnn.forward,
    "resnet": resnet.forward,
    "recurrent": rnn.forward,
    "transformer": transformer.forward,
}
"""Family in the catalogue -> network."""

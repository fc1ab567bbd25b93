"""Networks by name: a forward pass each, with the parameter names and layouts of
jaxnn/models."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.models import cnn, dense, resnet, rnn, transformer
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor, lift


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, inputs: np.ndarray
) -> Tensor:
    """The network's outputs.

    Args:
      scope: parameters, running statistics and masks.
      experiment: its model flags.
      signature: shapes of the data's inputs and outputs.
      inputs: [batch, ...] numbers or integer tokens.
    """
    x = inputs if signature.num_tokens else lift(inputs)
    return MODELS[experiment.model](scope, experiment, signature, x)


def initial(
    experiment: Experiment, signature: Signature
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Fresh parameters and running statistics by name, float64; each parameter's draw
    depends on seed and name."""
    scope = Scope({}, {}, seed=experiment.seed)
    forward(
        scope, experiment, signature, np.zeros((1, *signature.input_shape), np.int32)
    )
    return {
        name: tensor.value for name, tensor in sorted(scope.params.items())
    }, scope.batch_stats


MODELS: dict[str, Callable[[Scope, Experiment, Signature, Any], Tensor]] = {
    "linear": dense.linear,
    "perceptron": dense.linear,
    "logistic": dense.linear,
    "mlp": dense.mlp,
    "cnn": cnn.forward,
    "resnet": resnet.forward,
    "rnn": rnn.forward,
    "lstm": rnn.forward,
    "gru": rnn.forward,
    "transformer": transformer.forward,
    "transformer_encoder": transformer.forward,
}

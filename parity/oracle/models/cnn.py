"""Convolutional network."""

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import activations
from parity.oracle.convolution import POOLS, conv_layer
from parity.oracle.initializers import INITIALIZERS
from parity.oracle.layers import normalize
from parity.oracle.models.dense import hide
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor
) -> Tensor:
    """pool(activation(normalize(conv(x)))) for each of `--channels`, then an MLP of the
    flattened image.

    A pooling halves height and width and is left out once one of them is 1.
    """
    activation = activations.build(experiment.activation, experiment.leaky_relu_alpha)
    size, start = experiment.kernel_size, INITIALIZERS[experiment.initializer]
    for layer, channels in enumerate(experiment.channels):
        x = conv_layer(scope, f"conv_{layer}", channels, size, x, start)
        x = activation(normalize(experiment.normalization, scope, f"norm_{layer}", x))
        x = POOLS[experiment.pool](x, 2) if min(x.shape[1:3]) > 1 else x
    return hide(scope, experiment, signature, x, norms="hidden_norm")

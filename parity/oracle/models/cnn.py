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
    """pool(activation(normalize(conv(x)))) per entry of `--channels`, then an MLP.

    Args:
      scope: parameters, running statistics and masks.
      experiment: model flags.
      signature: shapes of the inputs and outputs.
      x: [batch, height, width, channels].
    """
    activation = activations.build(experiment.activation, experiment.leaky_relu_alpha)
    initializer = INITIALIZERS[experiment.initializer]
    pool = POOLS[experiment.pool]

    for layer, channels in enumerate(experiment.channels):
        x = conv_layer(
            scope,
            f"conv_{layer}",
            channels,
            experiment.kernel_size,
            x,
            initializer,
            use_bias=experiment.use_bias,
        )
        x = activation(normalize(experiment.normalization, scope, f"norm_{layer}", x))
        # A pool halves height and width, until one of them is 1 and no window fits.
        if min(x.shape[1:3]) > 1:
            x = pool(x, 2)

    return hide(scope, experiment, signature, x, norms="hidden_norm")

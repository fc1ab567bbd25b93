"""Networks by name. Twin of torch_ref/models/__init__.py."""

from collections.abc import Callable

import flax.linen as nn

from jaxnn import activations
from jaxnn.experiment.catalogue import MODELS, is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.initializers import INITIALIZERS
from jaxnn.models import own
from jaxnn.models.cnn import CNN
from jaxnn.models.linear import Linear
from jaxnn.models.mlp import MLP
from jaxnn.models.resnet import ResNet
from jaxnn.models.rnn import Recurrent
from jaxnn.models.transformer import Transformer


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """Returns the network of an experiment, called with (inputs, masks).

    Args:
      experiment: model flags.
      signature: shapes of the inputs and outputs of the data.
    """
    if is_own(experiment.model):
        return own.build(experiment, signature, _activation(experiment))
    make = FAMILIES[MODELS[experiment.model].family]
    return make(experiment, signature)


def _linear(experiment: Experiment, signature: Signature) -> nn.Module:
    return Linear(
        num_outputs=signature.num_outputs,
        initializer=INITIALIZERS[experiment.initializer],
        use_bias=experiment.use_bias,
    )


def _mlp(experiment: Experiment, signature: Signature) -> nn.Module:
    return MLP(
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        activation=_activation(experiment),
        dropout_rates=experiment.dropout_rates,
        normalization=experiment.normalization,
        residual=experiment.residual,
        initializer=INITIALIZERS[experiment.initializer],
        use_bias=experiment.use_bias,
    )


def _cnn(experiment: Experiment, signature: Signature) -> nn.Module:
    return CNN(
        channels=experiment.channels,
        kernel_size=experiment.kernel_size,
        pool=experiment.pool,
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        activation=_activation(experiment),
        normalization=experiment.normalization,
        dropout_rates=experiment.dropout_rates,
        initializer=INITIALIZERS[experiment.initializer],
        algorithm=experiment.convolution,
        use_bias=experiment.use_bias,
    )


def _resnet(experiment: Experiment, signature: Signature) -> nn.Module:
    return ResNet(
        depth=experiment.resnet_depth,
        num_outputs=signature.num_outputs,
        initializer=INITIALIZERS[experiment.initializer],
        algorithm=experiment.convolution,
    )


def _recurrent(experiment: Experiment, signature: Signature) -> nn.Module:
    return Recurrent(
        cell=experiment.model,
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        num_tokens=signature.num_tokens,
        per_step=signature.per_step,
        dropout_rates=experiment.dropout_rates,
        initializer=INITIALIZERS[experiment.initializer],
    )


def _transformer(experiment: Experiment, signature: Signature) -> nn.Module:
    return Transformer(
        num_tokens=signature.num_tokens,
        num_outputs=signature.num_outputs,
        num_layers=experiment.num_layers,
        width=experiment.width,
        num_heads=experiment.num_heads,
        # Four times the width, as Vaswani et al. 2017, unless the flag says otherwise.
        mlp_width=experiment.mlp_width or 4 * experiment.width,
        max_length=signature.input_shape[0],
        causal=experiment.model == "transformer",
        per_step=signature.per_step,
        dropout_rate=experiment.dropout_rates[0] if experiment.dropout_rates else 0.0,
        initializer=INITIALIZERS[experiment.initializer],
    )


def _activation(experiment: Experiment) -> activations.Activation:
    return activations.build(experiment.activation, experiment.leaky_relu_alpha)


FAMILIES: dict[str, Callable[[Experiment, Signature], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "recurrent": _recurrent,
    "transformer": _transformer,
}
"""Family in the catalogue -> network of an experiment."""

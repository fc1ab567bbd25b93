"""Networks by name. Twin of torch_ref/models."""

from collections.abc import Callable

import flax.linen as nn

from jaxnn import activations
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.cnn import CNN
from jaxnn.models.linear import Linear
from jaxnn.models.mlp import MLP
from jaxnn.models.resnet import ResNet
from jaxnn.models.rnn import Recurrent
from jaxnn.models.transformer import Transformer


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """The experiment's network: `module.apply(variables, inputs, masks) -> outputs`.

    Args:
      experiment: its model flags.
      signature: shapes of the data's inputs and outputs.
    """
    return MODELS[experiment.model](experiment, signature)


def _linear(experiment: Experiment, signature: Signature) -> nn.Module:
    return Linear(signature.num_outputs, INITIALIZERS[experiment.initializer])


def _mlp(experiment: Experiment, signature: Signature) -> nn.Module:
    return MLP(
        experiment.hidden_sizes,
        signature.num_outputs,
        _activation(experiment),
        experiment.dropout_rates,
        INITIALIZERS[experiment.initializer],
        experiment.normalization,
    )


def _cnn(experiment: Experiment, signature: Signature) -> nn.Module:
    return CNN(
        experiment.channels,
        experiment.kernel_size,
        experiment.pool,
        experiment.hidden_sizes,
        signature.num_outputs,
        _activation(experiment),
        experiment.normalization,
        experiment.dropout_rates,
        INITIALIZERS[experiment.initializer],
        experiment.convolution,
    )


def _resnet(experiment: Experiment, signature: Signature) -> nn.Module:
    return ResNet(
        experiment.resnet_depth,
        signature.num_outputs,
        INITIALIZERS[experiment.initializer],
        experiment.convolution,
    )


def _recurrent(experiment: Experiment, signature: Signature) -> nn.Module:
    return Recurrent(
        experiment.model,
        experiment.hidden_sizes,
        signature.num_outputs,
        signature.num_tokens,
        signature.per_step,
        experiment.dropout_rates,
        INITIALIZERS[experiment.initializer],
    )


def _transformer(experiment: Experiment, signature: Signature) -> nn.Module:
    is_decoder = experiment.model == "transformer"
    return Transformer(
        num_tokens=signature.num_tokens,
        num_outputs=signature.num_outputs,
        num_layers=experiment.num_layers,
        width=experiment.width,
        num_heads=experiment.num_heads,
        mlp_width=experiment.mlp_width or 4 * experiment.width,
        max_length=signature.input_shape[0],
        causal=is_decoder,
        per_step=signature.per_step,
        dropout_rate=experiment.dropout_rates[0] if experiment.dropout_rates else 0.0,
        initializer=INITIALIZERS[experiment.initializer],
    )


def _activation(experiment: Experiment) -> activations.Activation:
    return activations.build(experiment.activation, experiment.leaky_relu_alpha)


MODELS: dict[str, Callable[[Experiment, Signature], nn.Module]] = {
    "linear": _linear,
    "perceptron": _linear,
    "logistic": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "rnn": _recurrent,
    "lstm": _recurrent,
    "gru": _recurrent,
    "transformer": _transformer,
    "transformer_encoder": _transformer,
}

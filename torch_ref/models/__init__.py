"""Networks by name. Twin of jaxnn/models."""

import math
from collections.abc import Callable

from torch import nn

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref import activations
from torch_ref.initializers import INITIALIZERS
from torch_ref.models import rnn
from torch_ref.models.cnn import CNN
from torch_ref.models.linear import Linear
from torch_ref.models.mlp import MLP
from torch_ref.models.resnet import ResNet
from torch_ref.models.rnn import Recurrent
from torch_ref.models.transformer import Transformer


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """The experiment's network, initialized: `module(inputs, masks) -> outputs`.

    Args:
      experiment: its model flags.
      signature: shapes of the data's inputs and outputs.
    """
    model = MODELS[experiment.model](experiment, signature)
    start = INITIALIZERS[experiment.initializer]
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            start.kernel(layer.weight)
            if layer.bias is not None:
                start.bias(layer.weight[0].numel())(layer.bias)
        elif isinstance(layer, nn.RNNBase):
            rnn.initialize(layer, start)
    return model


def _linear(experiment: Experiment, signature: Signature) -> nn.Module:
    return Linear(math.prod(signature.input_shape), signature.num_outputs)


def _mlp(experiment: Experiment, signature: Signature) -> nn.Module:
    return MLP(
        math.prod(signature.input_shape),
        experiment.hidden_sizes,
        signature.num_outputs,
        _activation(experiment),
        experiment.dropout_rates,
        experiment.normalization,
    )


def _cnn(experiment: Experiment, signature: Signature) -> nn.Module:
    return CNN(
        signature.input_shape,
        experiment.channels,
        experiment.kernel_size,
        experiment.pool,
        experiment.hidden_sizes,
        signature.num_outputs,
        _activation(experiment),
        experiment.normalization,
        experiment.dropout_rates,
    )


def _resnet(experiment: Experiment, signature: Signature) -> nn.Module:
    return ResNet(
        signature.input_shape[-1], experiment.resnet_depth, signature.num_outputs
    )


def _recurrent(experiment: Experiment, signature: Signature) -> nn.Module:
    return Recurrent(
        signature.input_shape[-1],
        experiment.model,
        experiment.hidden_sizes,
        signature.num_outputs,
        signature.num_tokens,
        signature.per_step,
        experiment.dropout_rates,
    )


def _transformer(experiment: Experiment, signature: Signature) -> nn.Module:
    is_decoder = experiment.model == "transformer"
    return Transformer(
        num_inputs=math.prod(signature.input_shape[1:]),
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

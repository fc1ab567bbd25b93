"""Networks by name. Twin of jaxnn/models/__init__.py."""

import math
from collections.abc import Callable

from torch import nn

from jaxnn.experiment.catalogue import MODELS, is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref import activations
from torch_ref.initializers import INITIALIZERS
from torch_ref.models import own, rnn
from torch_ref.models.cnn import CNN
from torch_ref.models.linear import Linear
from torch_ref.models.mlp import MLP
from torch_ref.models.resnet import ResNet
from torch_ref.models.rnn import Recurrent
from torch_ref.models.transformer import Transformer


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """Returns the network of an experiment, called with (inputs, masks).

    Args:
      experiment: model flags.
      signature: shapes of the inputs and outputs of the data.
    """
    if is_own(experiment.model):
        return own.build(experiment, signature, _activation(experiment))
    make = FAMILIES[MODELS[experiment.model].family]
    model = make(experiment, signature)
    initializer = INITIALIZERS[experiment.initializer]
    # Embeddings and normalizations keep the start that their modules give them.
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            initializer.kernel(layer.weight)
            if layer.bias is not None:
                fan_in = layer.weight[0].numel()
                initializer.bias(fan_in)(layer.bias)
        elif isinstance(layer, nn.RNNBase):
            rnn.initialize(layer, initializer)
    return model


def _linear(experiment: Experiment, signature: Signature) -> nn.Module:
    return Linear(
        num_inputs=math.prod(signature.input_shape),
        num_outputs=signature.num_outputs,
        use_bias=experiment.use_bias,
    )


def _mlp(experiment: Experiment, signature: Signature) -> nn.Module:
    return MLP(
        num_inputs=math.prod(signature.input_shape),
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        activation=_activation(experiment),
        dropout_rates=experiment.dropout_rates,
        normalization=experiment.normalization,
        use_bias=experiment.use_bias,
        residual=experiment.residual,
    )


def _cnn(experiment: Experiment, signature: Signature) -> nn.Module:
    return CNN(
        image_shape=signature.input_shape,
        channels=experiment.channels,
        kernel_size=experiment.kernel_size,
        pool=experiment.pool,
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        activation=_activation(experiment),
        normalization=experiment.normalization,
        dropout_rates=experiment.dropout_rates,
        use_bias=experiment.use_bias,
    )


def _resnet(experiment: Experiment, signature: Signature) -> nn.Module:
    return ResNet(
        num_inputs=signature.input_shape[-1],
        depth=experiment.resnet_depth,
        num_outputs=signature.num_outputs,
    )


def _recurrent(experiment: Experiment, signature: Signature) -> nn.Module:
    return Recurrent(
        num_inputs=signature.input_shape[-1],
        cell=experiment.model,
        hidden_sizes=experiment.hidden_sizes,
        num_outputs=signature.num_outputs,
        num_tokens=signature.num_tokens,
        per_step=signature.per_step,
        dropout_rates=experiment.dropout_rates,
    )


def _transformer(experiment: Experiment, signature: Signature) -> nn.Module:
    return Transformer(
        num_inputs=math.prod(signature.input_shape[1:]),
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

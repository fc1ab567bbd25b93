"""A network of one's own, from `--model=FILE.py:NAME`. Twin of jaxnn/models/own.py.

What such a file holds stands in jaxnn/experiment/own_model.py.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor as Array
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from jaxnn.experiment import own_model
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import own_params
from torch_ref.activations import Activation
from torch_ref.dropout import MaskSource, dropout


class Context:
    """What a forward pass is given, for the dropout layers in it.

    Attributes:
      masks: training context, or None outside training.
      numbers: indices of the dropout layers, in the order of their calls.
    """

    def __init__(self):
        self.masks: MaskSource | None = None
        self.numbers: Iterator[int] = itertools.count()


def build(
    experiment: Experiment, signature: Signature, activation: Activation
) -> nn.Module:
    """Returns the network of `--model=FILE.py:NAME`, called with (inputs, masks).

    Args:
      experiment: model flags.
      signature: shapes of the inputs and outputs of the data.
      activation: function of `--activation`.

    Raises:
      UserError: the file or its class is no network for these data.
    """
    make = own_model.load(experiment.model, own_model.TORCH)
    model = own_model.construct(make, experiment, signature, activation)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"--model: {make.__name__} is no torch.nn.Module; derive it from that"
        )
    _call_as_ours(model)
    own_params.name_own(model, own_model.converter(experiment.model))
    outputs = own_model.tried(experiment.model, lambda: _outputs(model, signature))
    own_model.check_outputs(
        experiment.model, make.__name__, tuple(outputs.shape), signature
    )
    return model


def _call_as_ours(model: nn.Module) -> None:
    """Lets a network be called with (inputs, masks); adds nothing to its names."""
    call = model.forward
    takes_masks = own_model.takes(call, "masks")
    context = Context()
    for layer in model.modules():
        if isinstance(layer, _DropoutNd):
            _mask(layer, context)

    def forward(inputs: Array, masks: MaskSource | None = None) -> Array:
        context.masks, context.numbers = masks, itertools.count()
        return call(inputs, masks=masks) if takes_masks else call(inputs)

    model.forward = forward


def _mask(layer: _DropoutNd, context: Context) -> None:
    """Gives nn.Dropout the masks of both stacks."""
    if type(layer) is not nn.Dropout:
        raise UserError(
            f"--model: nn.{type(layer).__name__} has no twin in flax; use nn.Dropout"
        )

    def forward(x: Array) -> Array:
        number = next(context.numbers)
        masks = context.masks if layer.training else None
        # Masks are drawn in flax's layout.
        if x.dim() == IMAGES:
            return dropout(x.movedim(1, -1), layer.p, number, masks).movedim(-1, 1)
        return dropout(x, layer.p, number, masks)

    setattr(layer, "forward", forward)  # noqa: B010, a layer's type forbids it


@torch.no_grad()
def _outputs(model: nn.Module, signature: Signature) -> Array:
    """Returns the outputs of one example, in evaluation mode."""
    dtype = torch.int32 if signature.num_tokens else torch.float32
    was_training = model.training
    outputs = model.eval()(torch.zeros((1, *signature.input_shape), dtype=dtype))
    model.train(was_training)
    return outputs


IMAGES = 4
"""Dimensions of a batch of images."""

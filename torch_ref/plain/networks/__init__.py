"""Networks by name, in torch's own layers.

Names and shapes of their parameters are those of `torch_ref.models`, so that a state
dict of one loads into the other, and the outputs are equal but for rounding.
"""

from collections.abc import Callable

from torch import nn

from jaxnn.experiment import own_model
from jaxnn.experiment.catalogue import MODELS, is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from torch_ref import models
from torch_ref.plain import activations
from torch_ref.plain.networks.cnn import cnn
from torch_ref.plain.networks.dense import linear, mlp
from torch_ref.plain.networks.recurrent import Recurrent
from torch_ref.plain.networks.resnet import ResNet
from torch_ref.plain.networks.transformer import Transformer


def build(experiment: Experiment, signature: Signature) -> nn.Module:
    """Returns the network of an experiment, called with inputs alone.

    It begins with the parameters that `torch_ref.models` draws.

    Args:
      experiment: model flags.
      signature: shapes of the inputs and outputs of the data.

    Raises:
      UserError: the file or the class of one's own network is none for these data.
    """
    if is_own(experiment.model):
        make = own_model.load(experiment.model, own_model.TORCH)
        return own_model.construct(
            make, experiment, signature, activations.build(experiment)
        )
    network = FAMILIES[MODELS[experiment.model].family](experiment, signature)
    network.load_state_dict(models.build(experiment, signature).state_dict())
    return network


FAMILIES: dict[str, Callable[[Experiment, Signature], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "resnet": ResNet,
    "recurrent": Recurrent,
    "transformer": Transformer,
}
"""Family in the catalogue -> network of an experiment."""

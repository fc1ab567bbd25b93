"""The trained part of a network's parameters under `--freeze`.

See jaxnn/experiment/freezing.py for what freezing means. Twin of jaxnn/freezing.py.
"""

from torch import nn

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.freezing import check, is_trained
from torch_ref import params_io


def freeze(experiment: Experiment, model: nn.Module) -> None:
    """Takes frozen parameters out of autograd, and so out of DeepSpeed's hands.

    Raises:
      UserError: `--freeze` leaves all parameters, or none.
    """
    if not experiment.freeze:
        return
    names = params_io.flax_names(model)
    check(experiment, names.values())
    for name, param in model.named_parameters():
        param.requires_grad_(is_trained(experiment, names[name]))


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that are trained."""
    return [param for param in model.parameters() if param.requires_grad]

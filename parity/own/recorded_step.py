"""A recorded step as a replay of it is compared with."""

from typing import Any

from jaxnn.experiment.files.trace import grad_norm, select
from parity.noise import Tensors
from parity.own.port import Port


def recorded_step(port: Port, number: int, scale: Any) -> Tensors:
    """Returns the tensors of a step by the port's names, activations among them.

    Args:
      port: the port and its recording.
      number: index of the step.
      scale: what multiplied the loss.
    """
    step = port.ported.read(number) | {"loss_scale": scale}
    recorded = port.activations(number).items()
    step |= {f"activations/{name}": array for name, array in recorded}
    # That of the port's gradients: a converter may scale torch's, or repeat them.
    gradients = select(step, "grads").values()
    step["grad_norm"] = grad_norm(gradients, bool(step["skipped"]))
    return step

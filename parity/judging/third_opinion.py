"""Third opinion on a tensor that fails: the oracle's, in NumPy and float64.

Says whether the recording or JAX's replay is nearer to it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.catalogue import is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.inputs import Inputs
from parity.judging.measure import Measurement
from parity.noise import norm
from parity.oracle import step as oracle_step
from parity.quantities import QUANTITIES, UPDATE


class Vote(NamedTuple):
    """Relative distances from the oracle's tensor.

    Attributes:
      recorded: distance of what the stack recorded.
      replayed: distance of what JAX computed from the same inputs.
    """

    recorded: float
    replayed: float

    def sentence(self, stack: str) -> str:
        """Returns in one line which side the oracle is on."""
        side = "the replay" if self.replayed < self.recorded else stack
        return (
            f"the oracle (NumPy, float64) sides with {side}: {stack} is "
            f"{self.recorded:.1e} away from it, the replay {self.replayed:.1e}"
        )


def vote(
    experiment: Experiment,
    signature: Signature,
    inputs: Inputs,
    step: Mapping[str, np.ndarray],
    replayed: Mapping[str, np.ndarray],
    failed: Measurement,
) -> Vote | None:
    """Asks the oracle about the first tensor that failed.

    Args:
      experiment: experiment that was recorded.
      signature: shapes of its data.
      inputs: what the step started from.
      step: recorded tensors by name.
      replayed: tensors that JAX computed.
      failed: the measurement.

    Returns:
      None for what is no tensor of the computation, depends on the number of ranks, of
      which the oracle has one, or is of a network of one's own, which it does not know.
    """
    quantity = QUANTITIES[failed.quantity]
    per_rank_statistics = experiment.num_devices > 1 and not experiment.sync_batch_norm
    is_unknown = per_rank_statistics or is_own(experiment.model)
    if not quantity.kind or (is_unknown and quantity.part != UPDATE):
        return None
    name = "/".join(filter(None, (quantity.kind, failed.tensor)))
    if quantity.part == UPDATE:
        truth = _update(experiment, inputs)[name]
    else:
        truth = _gradients(experiment, signature, inputs)[name]
    size = norm(truth) or 1.0
    recorded_distance = norm(step[name] - truth) / size
    replayed_distance = norm(replayed[name] - truth) / size
    return Vote(recorded_distance, replayed_distance)


def _update(experiment: Experiment, inputs: Inputs) -> Mapping[str, Any]:
    return oracle_step.update(
        experiment,
        select(inputs.master, "params"),
        select(inputs.master, "grads"),
        select(inputs.master, "moments"),
        inputs.updates,
        inputs.learning_rate,
    )


def _gradients(
    experiment: Experiment, signature: Signature, inputs: Inputs
) -> Mapping[str, Any]:
    return oracle_step.gradients(
        experiment,
        signature,
        select(inputs.compute, "params"),
        select(inputs.compute, "batch_stats"),
        inputs.compute["inputs"],
        inputs.targets,
        inputs.step,
    )

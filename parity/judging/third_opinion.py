"""The third opinion on a tensor that fails: is the recording or JAX's replay nearer to
the oracle's float64?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from parity.inputs import Inputs
from parity.judging.measure import Measurement
from parity.noise import norm
from parity.oracle import step as oracle_step

KINDS = {
    "activations": "activations",
    "loss": "loss",
    "batch_stats": "updated_batch_stats",
    "grads": "grads",
    "moments": "updated_moments",
    "updated": "updated",
}
"""Quantity -> the kind of tensor that it measures."""
OF_THE_UPDATE = ("moments", "updated")


class Vote(NamedTuple):
    """Relative distances from the oracle's tensor.

    Attributes:
      recorded: of what the stack recorded.
      replayed: of what JAX computed from the same inputs.
    """

    recorded: float
    replayed: float

    def sentence(self, stack: str) -> str:
        """Which side is right, in a line."""
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
    """Asks the oracle about the first tensor that failed; None for what is no tensor of
    the computation, or depends on how many ranks there are, of which the oracle has
    one.

    Args:
      experiment: that was recorded.
      signature: of its data.
      inputs: what the step started from.
      step: what was recorded.
      replayed: what JAX computed.
      failed: the measurement.
    """
    has_own_statistics = experiment.num_devices > 1 and not experiment.sync_batch_norm
    if failed.quantity not in KINDS or (
        has_own_statistics and failed.quantity not in OF_THE_UPDATE
    ):
        return None
    name = "/".join(filter(None, (KINDS[failed.quantity], failed.tensor)))
    truth = _half(experiment, signature, inputs, failed.quantity)[name]
    size = norm(truth) or 1.0
    return Vote(norm(step[name] - truth) / size, norm(replayed[name] - truth) / size)


def _half(
    experiment: Experiment, signature: Signature, inputs: Inputs, quantity: str
) -> Mapping[str, Any]:
    if quantity in OF_THE_UPDATE:
        kinds = {
            kind: select(inputs.master, kind) for kind in ("params", "grads", "moments")
        }
        return oracle_step.update(
            experiment,
            kinds["params"],
            kinds["grads"],
            kinds["moments"],
            inputs.updates,
            inputs.learning_rate,
        )
    params, stats = (select(inputs.compute, kind) for kind in ("params", "batch_stats"))
    return oracle_step.gradients(
        experiment,
        signature,
        params,
        stats,
        inputs.compute["inputs"],
        inputs.targets,
        inputs.step,
    )

"""What to say when a loss or a gradient is not finite: which flag to change."""

from collections.abc import Sequence

import numpy as np

from jaxnn.experiment.catalogue import ADAM
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# The root of a second moment below float32's smallest number is 0: from here on down,
# gradients are divided by eps alone.
SMALLEST_EPS = 1e-19
EPS = {
    **dict.fromkeys(ADAM, "adam_eps"),
    "rmsprop": "rmsprop_eps",
    "adagrad": "adagrad_eps",
}
# Of activations beyond this slope each layer multiplies its inputs.
STEEPEST = 2.0
COMMON = Experiment()
"""An experiment of which no flag is odd."""


def stop_unless_finite(
    names: Sequence[str],
    finite: np.ndarray,
    first_step: int,
    experiment: Experiment = COMMON,
) -> None:
    """Raises UserError with the first step and tensor that is not finite.

    Args:
      names: [tensors] names.
      finite: [steps, tensors] bool, True for finite tensors.
      first_step: index of the first of these steps in the run.
      experiment: its flags may be the cause.
    """
    if not finite.all():
        step, tensor = np.argwhere(~finite)[0]
        raise UserError(
            f"step {first_step + step}: {names[tensor]} is not finite; "
            f"{_cause(experiment, first_step + step)}"
        )


def _cause(experiment: Experiment, step: int) -> str:
    steep = experiment.leaky_relu_alpha
    if experiment.activation == "leaky_relu" and steep > STEEPEST:
        return f"--leaky_relu_alpha={steep:g} makes each layer larger, lower it"
    # Before the first update it cannot be what makes updates.
    if step == 0:
        return (
            "inputs or first parameters are too large, try --preprocess=standardize "
            "or another --initializer or --init_params"
        )
    return (
        _small_eps(experiment)
        or _large_decay(experiment)
        or "training diverged, try a smaller --learning_rate"
    )


def _small_eps(experiment: Experiment) -> str:
    flag = EPS.get(experiment.optimizer)
    eps = getattr(experiment, flag) if flag else 1.0
    if eps >= SMALLEST_EPS:
        return ""
    return (
        f"where gradients are near 0, --{flag}={eps:g} alone divides them; raise it, "
        "to 1e-8 for example"
    )


def _large_decay(experiment: Experiment) -> str:
    """Returns which decay takes away more than twice what there is at each step."""
    for flag in ("weight_decay", "l2"):
        # What divides gradients by their size does the same to a decay in them.
        is_divided = flag == "l2" and experiment.optimizer in EPS
        decay = getattr(experiment, flag)
        if decay * experiment.learning_rate > 2 and not is_divided:
            return (
                f"--{flag}={decay:g} times --learning_rate="
                f"{experiment.learning_rate:g} is more than 2, lower it"
            )
    return ""

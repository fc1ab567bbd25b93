"""What a judgement of the first steps of a run cannot see, in words."""

from collections.abc import Iterator

from jaxnn.experiment.data import batches
from jaxnn.experiment.flags.config import Experiment


def unseen(experiment: Experiment, num_samples: int, steps: int) -> Iterator[str]:
    """Yields what was not put to the test, a sentence each.

    Args:
      experiment: what was trained.
      num_samples: rows of its training data.
      steps: number of steps that were judged.
    """
    yield "Both stacks began from one file of parameters: no initializer was compared."
    yield "Both stacks read one set of arrays: loading and scaling were not compared."
    per_epoch = batches.steps_per_epoch(num_samples, experiment.batch_size)
    if steps <= per_epoch:
        yield (
            f"No second epoch was reached ({per_epoch} steps each): that its order is "
            "another one was not seen."
        )
    if steps < per_epoch or num_samples % experiment.batch_size == 0:
        yield (
            "Every batch was whole: what the mean over a smaller last one is was not "
            "seen."
        )
    if experiment.precision == "fp16" and not experiment.static_loss_scale:
        window = experiment.loss_scale_window
        if steps <= window:
            yield f"The loss scale could not grow yet (--loss_scale_window={window})."

"""What one recorded step starts from."""

from typing import NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import Number
from parity.noise import Tensors


class Inputs(NamedTuple):
    """Everything that a step's computation reads.

    Attributes:
      compute: {"params/NAME", "batch_stats/NAME", "inputs"} as the forward pass sees
        them: parameters and inputs in the compute dtype, statistics in float32, tokens
        as integers.
      master: {"params/NAME", "grads/NAME", "moments/first/NAME", ...} as the optimizer
        sees them.
      targets: [samples, ...].
      step: batches seen before, skipped ones counted.
      updates: updates applied before.
      scale: () float32, multiplies the loss before the backward pass.
      divisor: () float32, divides the gradients after it.
      loss_share: () float32, multiplies the loss that is reported.
      learning_rate: () float32.
    """

    compute: Tensors
    master: Tensors
    targets: np.ndarray
    step: int
    updates: int
    scale: Number
    divisor: Number
    loss_share: Number
    learning_rate: Number

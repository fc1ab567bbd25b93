"""Early stopping on the validation loss (Prechelt 1998), the same in both stacks."""

import math


class EarlyStopping:
    """Tracks the best loss so far.

    Args:
      patience: epochs without improvement after which to stop; 0: never stop.
      min_delta: smallest decrease below the best loss that counts as an improvement.

    Attributes:
      best_epoch: epoch of the best loss, from 0; -1 before the first epoch.
      best_loss: loss of that epoch.
    """

    def __init__(self, patience: int, min_delta: float = 0.0):
        self._patience = patience
        self._min_delta = min_delta
        self._epoch = -1
        self.best_epoch = -1
        self.best_loss = math.inf

    def improves(self, loss: float) -> bool:
        """Records the loss of the next epoch; returns True if it is the best so far."""
        self._epoch += 1
        # `not <` instead of `>=`: a NaN is never an improvement.
        if not loss < self.best_loss - self._min_delta:
            return False
        self.best_epoch = self._epoch
        self.best_loss = loss
        return True

    @property
    def is_over(self) -> bool:
        """True if `patience` epochs have passed since the best one."""
        return 0 < self._patience <= self._epoch - self.best_epoch

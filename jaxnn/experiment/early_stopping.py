"""Early stopping on the validation loss (Prechelt 1998). The same in both stacks."""

import math


class EarlyStopping:
    """Watches a loss by epoch.

    Args:
      patience: epochs without an improvement after which to stop; 0: never.
      min_delta: how much lower than the best a loss must be to count as an improvement.

    Attributes:
      best_epoch: 0-based; -1 before the first.
      best_loss: at that epoch.
    """

    def __init__(self, patience: int, min_delta: float = 0.0):
        self._patience, self._min_delta = patience, min_delta
        self.best_epoch, self.best_loss = -1, math.inf
        self._epoch = -1

    def improves(self, loss: float) -> bool:
        """Takes the next epoch's loss; True if it is the best so far."""
        self._epoch += 1
        if not loss < self.best_loss - self._min_delta:
            return False
        self.best_epoch, self.best_loss = self._epoch, loss
        return True

    @property
    def is_over(self) -> bool:
        """Whether `patience` epochs have passed since the best."""
        return 0 < self._patience <= self._epoch - self.best_epoch

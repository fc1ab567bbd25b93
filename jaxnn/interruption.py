"""A signal that asks the run to stop: SIGTERM, which schedulers send before they take a
machine away."""

import itertools
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Interruption:
    """Notices SIGTERM from the moment it is made; several processes notice one
    another's.

    JAX itself listens for it where several processes train together.
    """

    def __init__(self):
        self._asked, self._looks = threading.Event(), itertools.count()
        if (
            jax.process_count() == 1
            and threading.current_thread() is threading.main_thread()
        ):
            signal.signal(signal.SIGTERM, lambda number, frame: self._asked.set())

    def is_due(self) -> bool:
        """Whether the run is to stop now: in all processes or in none, which ask
        equally often."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(next(self._looks))
        return self._asked.is_set()

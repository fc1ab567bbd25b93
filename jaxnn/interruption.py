"""Notices SIGTERM, which schedulers send before they take a machine away."""

import itertools
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

from jaxnn.grace import Limit


class Interruption:
    """Notices SIGTERM, of any process of the run, from when it is made.

    As a context it puts back at its end what the signal did before.

    Args:
      limit: ends the process if the signal cannot be obeyed in time; None: never.
    """

    def __init__(self, limit: Limit | None = None):
        self._limit = limit
        self._asked = threading.Event()
        self._looks = itertools.count()
        # Python allows signal handlers in the main thread only. Several processes rely
        # on JAX's own handler, which tells the others.
        is_main_thread = threading.current_thread() is threading.main_thread()
        self._before = None
        if jax.process_count() == 1 and is_main_thread:
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def __enter__(self) -> "Interruption":
        return self

    def __exit__(self, *exception) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked.set()

    def is_due(self) -> bool:
        """True if the run is to stop now, in all processes or in none.

        All processes must ask equally often.
        """
        if jax.process_count() > 1:
            # JAX answers True at one and the same look everywhere.
            return multihost_utils.reached_preemption_sync_point(next(self._looks))
        return self._asked.is_set()

    def obeyed(self) -> None:
        """Tells that what was asked for is being done, and may take its time."""
        if self._limit:
            self._limit.obeyed()

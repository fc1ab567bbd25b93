"""Wall time of the epochs of a run, evaluation and log included."""

import statistics
import time


class EpochTimes:
    """Times epochs, of which several may run in one call.

    Attributes:
      seconds: of each epoch; those of one call share its time.
    """

    def __init__(self):
        self.seconds: list[float] = []
        self._last = 0.0
        self._compiled = 0.0
        self._ended = 0

    def start(self) -> None:
        """Says that the first epoch begins."""
        self._last = time.perf_counter()

    def end(self, together: int, compiled: float) -> None:
        """Says that the next epoch has ended.

        Args:
          together: number of epochs in its call; they are known to have ended together.
          compiled: seconds spent compiling since the start, which do not count.
        """
        self._ended += 1
        if self._ended < together:
            return
        now = time.perf_counter()
        seconds = now - self._last - (compiled - self._compiled)
        self.seconds += [seconds / together] * together
        self._last, self._compiled, self._ended = now, compiled, 0

    def line(self) -> str:
        """Returns "epochs: 100 in 0.09 s, 0.9 ms each (median)"."""
        count, total = len(self.seconds), sum(self.seconds)
        text = f"epochs: {count} in {total:.2f} s"
        if count == 1:
            return text
        return f"{text}, {_time(statistics.median(self.seconds))} each (median)"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"

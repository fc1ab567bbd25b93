"""Work on a thread beside training."""

import concurrent.futures
import types
from collections.abc import Callable
from typing import Any


class Background:
    """Calls a function once per step on a thread, in order.

    A context, at whose end all calls are done. While one runs, one more waits: each
    holds a whole step in memory. The first that raises is the last; its error is
    raised here, by the next `put` or at the end of the context.

    Args:
      work: what is called.
    """

    def __init__(self, work: Callable[..., None]):
        self._work = work
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "record")
        self._last: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Background":
        return self

    def put(self, *args: Any) -> None:
        """Has the function called; waits for the call before this one."""
        self._wait()
        self._last = self._thread.submit(self._work, *args)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._wait()
        elif self._last is not None and (failure := self._last.exception()):
            # What ended the loop goes first.
            error.add_note(f"besides, own.record failed: {failure}")

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

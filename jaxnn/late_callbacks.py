"""Drops a traceback that says nothing beyond an error that is reported already.

When one of many reads or writes fails, Orbax closes its event loop, and each of the
others that fails later calls into it from a thread of tensorstore's. Python prints a
traceback each time: "Event loop is closed".
"""

import sys
from collections.abc import Callable
from typing import Any

CLOSED = "Event loop is closed"
CALL = "call_soon_threadsafe"


def drop() -> Callable[[], None]:
    """Drops those tracebacks from now on; returns what puts back the hook.

    After an error it is not to be called: they come a while later.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not _is_late(unraisable):
            before(unraisable)

    def put_back() -> None:
        # Another hook that was set meanwhile stays.
        if sys.unraisablehook is hook:
            sys.unraisablehook = before

    sys.unraisablehook = hook
    return put_back


def _is_late(unraisable: Any) -> bool:
    """True of a call into a closed event loop that has no Python caller."""
    error, trace = unraisable.exc_value, unraisable.exc_traceback
    is_closed = isinstance(error, RuntimeError) and str(error) == CLOSED
    return is_closed and trace and trace.tb_frame.f_code.co_name == CALL

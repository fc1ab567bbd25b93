"""One's own training program, recorded and judged; see README, "Bring your own".

Neither torch nor JAX is imported before it is used: what records may lack the one, what
judges the other.
"""

from typing import TYPE_CHECKING, Any

from parity.own.record import RecordCallback as RecordCallback
from parity.own.record import prepare_deepspeed as prepare_deepspeed
from parity.own.record import record as record

if TYPE_CHECKING:
    from parity.own.step import judge_step as judge_step


def __getattr__(name: str) -> Any:
    """Imports the judge, and JAX with it, when it is asked for."""
    if name != "judge_step":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from parity.own.step import judge_step

    return judge_step

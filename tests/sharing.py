"""Which tests one of pytest-xdist's processes runs together, and in which order.

A file stays in one process, and so do files that share recordings: what a fixture makes
and what JAX compiles for one test is there for the next. Those that take longest come
first, so that the processes end together.
"""

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/torch_ref/faults/",)
"""Folders whose files share recordings."""
LONGEST = (
    "tests/parity/networks_test.py",
    "tests/parity/run_test.py",
    "tests/torch_ref/train_test.py",
    "tests/jaxnn/train_test.py",
    "tests/torch_ref/recording_test.py",
    "tests/jaxnn/devices_test.py",
    "tests/jaxnn/interruption_test.py",
    "tests/parity/convert_test.py",
    "tests/parity/own_checkpoint/conversion_test.py",
    "tests/parity/free/spread_test.py",
    "tests/parity/own/deepspeed_test.py",
    "tests/jaxnn/distributed_test.py",
    "tests/torch_ref/faults/",
    "tests/torch_ref/engine_test.py",
    "tests/parity/free/judge_ends_test.py",
    "tests/torch_ref/loss_scale_test.py",
    "tests/torch_ref/models_test.py",
    "tests/jaxnn/streaming_test.py",
    "tests/parity/mutations/score_test.py",
    "tests/parity/sweep_test.py",
    "tests/parity/labs/subjects_test.py",
    "tests/parity/judging/guesses_test.py",
)
"""Of twenty seconds and more."""


class Sharing(LoadScopeScheduling):
    """pytest-xdist's queue of units of tests, a process taking one when it has done its
    last."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """What a test stays together with: its file or folder."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def rank(nodeid: str) -> int:
    """The place of a test's unit among all."""
    return LONGEST.index(unit(nodeid)) if unit(nodeid) in LONGEST else len(LONGEST)

"""Programs of the torch side, each a process of its own: no lab imports torch."""

import importlib.util
import subprocess
import sys

from jaxnn.experiment.errors import UserError
from parity import stacks

NEEDED = ("torch", "deepspeed")
"""Packages of the extra `torch`."""


def require(lab: str) -> None:
    """Raises UserError if this Python has no PyTorch or no DeepSpeed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{lab}: needs {' and '.join(missing)}, which this Python does not have; "
            "run bash launch/setup.sh torch"
        )


def run(module: str, *arguments: str) -> str:
    """Runs `python -m module` to its end; returns what it printed.

    Raises:
      RuntimeError: it failed; the last lines of both outputs are in the message.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-stacks.LAST_LINES :]
        raise RuntimeError(f"{module} failed:\n" + "\n".join(lines))
    return done.stdout

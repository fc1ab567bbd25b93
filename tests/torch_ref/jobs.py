"""Runs of torch_ref in one process of their own, which starts once for all of them."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence


def job(
    arguments: Sequence[str],
    workdir: pathlib.Path,
    fault: str = "",
    first_step: int = 0,
) -> dict:
    """A run, with a fault from its first step on."""
    return {
        "fault": fault,
        "first_step": first_step,
        "arguments": [*arguments, f"--workdir={workdir}"],
    }


def start(jobs: Sequence[dict], folder: pathlib.Path) -> subprocess.Popen:
    """Starts them, one after the other; what they say goes to `log`, and their exit
    codes to `jobs.done.json`."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch_ref.planted",
                f"--jobs={folder / 'jobs.json'}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run(jobs: Sequence[dict], folder: pathlib.Path) -> None:
    """As `start`, to the end."""
    start(jobs, folder).wait()

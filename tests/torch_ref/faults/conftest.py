"""The runs of every case, in one process, once."""

import functools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxnn.experiment.trace import Reader
from tests.torch_ref.faults.cases import FIRST, jobs_of


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
    """Where the cases were trained."""
    folder = tmp_path_factory.mktemp("faults")
    jobs = [{"fault": case.fault, "first_step": FIRST, "arguments": [*case.flag_values, f"--workdir={workdir}"]}
            for workdir, case in jobs_of(folder).items()]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([sys.executable, "-m", "torch_ref.planted", f"--jobs={folder / 'jobs.json'}"],
                          capture_output=True, text=True)
    (folder / "log").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="session")
def steps(folder):
    """steps(name): every step of a case, by the name of its folder."""

    @functools.cache
    def read(name: str) -> list[dict[str, np.ndarray]]:
        trace = Reader(folder / name / "trace")
        return [trace.read(number) for number in range(len(trace))]

    return read

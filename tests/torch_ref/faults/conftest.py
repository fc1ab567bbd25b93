"""The runs of every case, in one process, once."""

import functools
import pathlib

import numpy as np
import pytest

from jaxnn.experiment.files.trace import Reader
from tests.torch_ref import jobs
from tests.torch_ref.faults.cases import FIRST, jobs_of


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
    """Where the cases were trained."""
    folder = tmp_path_factory.mktemp("faults")
    runs = jobs_of(folder).items()
    jobs.run(
        [
            jobs.job(case.flag_values, workdir, case.fault, FIRST)
            for workdir, case in runs
        ],
        folder,
    )
    return folder


@pytest.fixture(scope="session")
def steps(folder):
    """steps(name): every step of a case, by the name of its folder."""

    @functools.cache
    def read(name: str) -> list[dict[str, np.ndarray]]:
        trace = Reader(folder / name / "trace")
        return [trace.read(number) for number in range(len(trace))]

    return read

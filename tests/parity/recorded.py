"""Experiments recorded by both stacks: the torch side of all of them in one process,
the JAX side in the test's own."""

import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.judging.measure import THRESHOLD
from parity.oracle.train import start
from parity.run import judge_traces
from tests.torch_ref import jobs

Cases = Mapping[str, Sequence[str]]
"""Name -> flags, --record_steps among them."""
PATIENCE = 500


def of(name: str, flags: Sequence[str]) -> Experiment:
    """The experiment of a case, to be recorded in full."""
    return command_line.parse(
        ["", *flags, "--noplots", "--record=full", f"--name={name}"], "fp16"
    )[0]


class Recorded:
    """Recordings of both stacks; the torch side's are made from when this is.

    Args:
      folder: for all of them.
      cases: to record.
    """

    def __init__(self, folder: pathlib.Path, cases: Cases):
        self._folder, self._cases = folder, cases
        self._process = jobs.start([self._job(name) for name in cases], folder)

    def _job(self, name: str) -> dict:
        experiment = of(name, self._cases[name])
        params = start(experiment, load_dataset(experiment)).params
        artifacts.write_params(
            self._initial(name),
            {key: np.asarray(x, np.float32) for key, x in params.items()},
        )
        arguments = (
            *self._cases[name],
            "--noplots",
            "--record=full",
            f"--init_params={self._initial(name)}",
        )
        return jobs.job(arguments, self._folder / name)

    def _initial(self, name: str) -> pathlib.Path:
        return self._folder / f"{name}.safetensors"

    def verdict(self, name: str, workdir: pathlib.Path) -> dict:
        """stack -> the verdict on its recording of a case."""
        experiment = of(name, self._cases[name]).replace(
            init_params=str(self._initial(name)), workdir=str(workdir / "jax")
        )
        train.main(experiment)
        traces = {
            "jax": Reader(workdir / "jax" / "trace"),
            "torch": self.trace(name, experiment.record_steps),
        }
        judgements = judge_traces(
            experiment,
            load_dataset(experiment),
            traces,
            artifacts.read_arrays(self._initial(name), "--init_params"),
            THRESHOLD,
        )
        return {stack: j.verdict.as_json() for stack, j in judgements.items()}

    def trace(self, name: str, steps: int) -> Reader:
        """Torch's recording, once it is whole."""
        folder, ended = self._folder / name / "trace", time.monotonic() + PATIENCE
        while len(list(folder.glob("step_*.safetensors"))) < steps:
            log = (self._folder / "log").read_text()
            assert not (self._folder / "jobs.done.json").exists(), log
            assert time.monotonic() < ended, log
            time.sleep(0.1)
        return Reader(folder)

    def stop(self) -> None:
        """Nothing is recorded for tests that were not to run."""
        self._process.kill()
        self._process.wait()

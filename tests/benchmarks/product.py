"""jaxnn's training, measured where its user measures it: `jaxnn.train.main`, and what
its summary says."""

import contextlib
import io
import pathlib
import tempfile

from jaxnn import train
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment


def train_seconds(experiment: Experiment) -> float:
    """Seconds that one whole run trained: checks, evaluation and rows included,
    compilation and plots not."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        train.main(experiment.replace(workdir=folder, plots=False))
        return artifacts.read_summary(pathlib.Path(folder))["train_seconds"]

"""jaxnn's training as `jaxnn.train.main` runs it: checks, evaluation, rows and progress included, compilation not."""

import contextlib
import io
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from jaxnn import models, parallel, recording, train, train_step
from jaxnn.experiment import records, run_log
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Dataset
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS


def make_run(experiment: Experiment, data: Dataset) -> Callable[[], None]:
    """Returns run(), which trains afresh in a temporary workdir; its first call compiles."""
    train.configure(experiment)
    devices = parallel.choose_devices(experiment)
    model, optimizer = models.build(experiment, data.num_outputs), OPTIMIZERS[experiment.optimizer](experiment)
    metric_name, metric = METRICS[data.task]
    steps = train_step.make_train_step(experiment, model, optimizer, parallel.AXIS)
    epoch = parallel.Compiled(
        parallel.make_epoch(steps, train_step.make_eval_step(experiment, model, metric), devices))
    start = train.start(experiment, model, optimizer, data)

    def run() -> None:
        with temporary_workdir(experiment) as workdir, run_log.RunLog(
                experiment, data, "jax", workdir, metric_name) as log:
            recorder = recording.Recorder(experiment, optimizer, None, devices, workdir)
            train.train(experiment, data, devices, start, epoch, recorder, log)

    run()
    return run


@contextlib.contextmanager
def temporary_workdir(experiment: Experiment) -> Any:
    """A workdir that vanishes, and silence on stdout meanwhile."""
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield records.create_workdir(experiment.replace(workdir=str(folder)), "jax")
    finally:
        shutil.rmtree(folder)

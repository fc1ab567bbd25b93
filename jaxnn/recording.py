"""Runs single steps and writes each into the workdir's trace (`--record`)."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxnn import parallel
from jaxnn.experiment import config, run_log, trace
from jaxnn.experiment.config import Experiment
from jaxnn.optimizers import Optimizer
from jaxnn.train_step import Params, StepResult, TrainState


class Recorder:
    """Records the first `--record_steps` steps of a run; without `--record` it records none.

    Args:
      experiment: what to record and for how long.
      optimizer: reads the moments.
      step: from `parallel.make_recorded_step`.
      devices: that the step runs on.
      workdir: the trace goes to its trace/ folder.
    """

    def __init__(self, experiment: Experiment, optimizer: Optimizer, step: Callable, devices: list[jax.Device],
                 workdir: pathlib.Path):
        self._left = experiment.record_steps if experiment.record != "off" else 0
        self._optimizer, self._step, self._count, self._next = optimizer, step, len(devices), 0
        if self._left:
            meta = dict(stack="jax", precision=experiment.precision, world_size=len(devices), steps=self._left,
                        flags=config.to_flagfile(experiment).splitlines(),
                        versions=run_log.versions(("jax", "flax", "optax")))
            self._writer = trace.Writer(workdir / "trace", experiment.record, meta)

    def run(self, state: TrainState, ids: np.ndarray,
            resident: parallel.Resident) -> tuple[TrainState, list[StepResult]]:
        """Takes and records as many of an epoch's steps as are still wanted.

        Args:
          state: replicated.
          ids: [steps, batch] global batches.
          resident: the data on the devices.

        Returns:
          The replicated state, and the results of the steps taken.
        """
        results = []
        for batch in ids[: self._left]:
            before = parallel.first(state)
            state, result, grads = self._step(state, parallel.shard(batch, self._count), resident)
            after, result, grads = parallel.first((state, result, grads))
            self._writer.write(self._next, step_tensors(self._optimizer, before, after, batch, result, grads))
            results.append(result)
            self._next += 1
        self._left -= len(results)
        return state, results


def step_tensors(optimizer: Optimizer, before: TrainState, after: TrainState, ids: np.ndarray, result: StepResult,
                 grads: Params) -> Mapping[str, Any]:
    """One step in the trace's terms; see `experiment/trace.py`."""
    return {
        "batch/ids": ids[ids >= 0],
        "params": before.params,
        "batch_stats": before.batch_stats,
        "moments": optimizer.moments(before.opt_state)._asdict(),
        "optimizer_step": before.updates,
        "loss": result.loss,
        "grads": grads,
        "grad_norm": trace.grad_norm(jax.tree.leaves(grads), result.skipped),
        "loss_scale": result.loss_scale,
        "skipped": result.skipped,
        "learning_rate": result.learning_rate,
        "updated": after.params,
        "updated_batch_stats": after.batch_stats,
        "updated_moments": optimizer.moments(after.opt_state)._asdict(),
    }


def join(recorded: list[StepResult], results: StepResult) -> StepResult:
    """The results of single steps, then those of a scan: each array [steps, ...]."""
    if not recorded:
        return results
    return jax.tree.map(lambda *steps: np.concatenate([*(np.asarray(s)[None] for s in steps[1:]), steps[0]]),
                        results, *recorded)

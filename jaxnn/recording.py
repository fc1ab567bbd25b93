"""Runs single steps and writes each into the workdir's trace (`--record`)."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxnn import parallel, train_step
from jaxnn.epochs import Work
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.optimizers import Optimizer
from jaxnn.train_step import Params, StepResult, TrainState


class Recorder:
    """Records the first `--record_steps` steps of a run, or of what a resumed one has
    left; without `--record` none.

    A trace counts its steps from 0.

    Args:
      work: what is trained on, and what to record for how long.
      model: that is trained.
      signature: that the model was built for.
      optimizer: reads the moments.
      first_step: of the run, or of what is left of it.
      workdir: the trace goes to its trace/ folder; None: nothing is recorded.

    Attributes:
      left: steps still to be recorded.
    """

    def __init__(
        self,
        work: Work,
        model: nn.Module,
        signature: Signature,
        optimizer: Optimizer,
        first_step: int,
        workdir: pathlib.Path | None,
    ):
        experiment = work.experiment
        self.left = (
            experiment.record_steps if experiment.record != "off" and workdir else 0
        )
        self._work, self._optimizer, self._next = work, optimizer, 0
        if self.left and workdir:
            self._step = make_step(experiment, model, optimizer, work.devices)
            self._names = parameter_names(model, signature)
            meta = dict(
                stack="jax",
                precision=experiment.precision,
                world_size=len(work.devices),
                steps=self.left,
                first_step=first_step,
                flags=options.to_flagfile(experiment).splitlines(),
                versions=run_log.versions(("jax", "flax", "optax")),
            )
            self._writer = trace.Writer(workdir / "trace", experiment.record, meta)

    def run(self, state: TrainState, ids: np.ndarray) -> tuple[TrainState, StepResult]:
        """Takes and records as many of an epoch's steps as are still wanted, at least
        one.

        Args:
          state: replicated.
          ids: [steps, batch] global batches.

        Returns:
          The replicated state, and the results [steps taken].
        """
        results, parts = [], self._work.experiment.accumulation_steps
        for batch in ids[: self.left]:
            before = parallel.first(state)
            state, result, grads, *activations = self._take(state, batch)
            after, result, grads = parallel.first((state, result, grads))
            tensors = step_tensors(self._optimizer, before, after, batch, result, grads)
            tensors["params"] = {name: tensors["params"][name] for name in self._names}
            if activations:
                tensors["activations"] = join_rows(
                    activations[0], len(tensors["batch/ids"]), parts
                )
            self._writer.write(self._next, tensors)
            results.append(result)
            self._next += 1
        self.left -= len(results)
        return state, jax.tree.map(lambda *steps: np.stack(steps), *results)

    def _take(self, state: TrainState, batch: np.ndarray) -> Any:
        """What `parallel.make_recorded_step` returns of a global batch [batch], which
        is put on the devices."""
        places, own = parallel.put_rows(
            self._work.train, self._work.shard(batch), self._work.devices
        )
        return self._step(state, places, own, self._work.learning_rates)


def make_step(
    experiment: Experiment,
    model: nn.Module,
    optimizer: Optimizer,
    devices: list[jax.Device],
) -> Callable:
    """The step that is recorded: the training step, whose layers can be seen under
    `--record=full`."""
    step = train_step.make_train_step(
        experiment,
        model,
        optimizer,
        parallel.AXIS,
        with_activations=experiment.record == "full",
    )
    return parallel.make_recorded_step(step, devices)


def parameter_names(model: nn.Module, signature: Signature) -> list[str]:
    """Flat names in the order in which the network makes its parameters; JAX sorts
    mappings by name."""
    names = []

    def note() -> None:
        names.extend(
            trace.flatten(train_step.initial_variables(model, 0, signature)["params"])
        )

    jax.eval_shape(note)
    return names


def step_tensors(
    optimizer: Optimizer,
    before: TrainState,
    after: TrainState,
    ids: np.ndarray,
    result: StepResult,
    grads: Params,
) -> dict[str, Any]:
    """One step in the trace's terms, without its activations; see
    `experiment/trace.py`."""
    return {
        "batch/ids": ids[ids >= 0],
        "params": trace.flatten(before.params),
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


def join_rows(
    activations: Mapping[str, jax.Array], samples: int, parts: int = 1
) -> dict[str, np.ndarray]:
    """[devices, rows of all parts, ...] of each layer, in any format -> [samples, ...]
    in at least float32.

    Converted here and not on the device, where XLA would drop the rounding to FP16
    before a conversion to float32.
    """
    joined = {
        layer: parallel.unshard(
            rows.reshape(len(rows), parts, -1, *rows.shape[2:]), samples
        )
        for layer, rows in activations.items()
    }
    return {
        layer: rows.astype(np.promote_types(rows.dtype, np.float32))
        for layer, rows in joined.items()
    }

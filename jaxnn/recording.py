"""Records steps into the trace of a run (`--record`). Twin of
torch_ref/recording.py."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxnn import gathering, parallel, train_step
from jaxnn.devices import Devices
from jaxnn.epochs import Work
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.batch_summary import batch_summary
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.optimizers import Optimizer
from jaxnn.train_step import Params, StepResult, TrainState


class Recorder:
    """Records the first `--record_steps` steps that a run, or a resumed one, has left.

    Without `--record` it records none. A trace counts its steps from 0.

    Args:
      work: what is trained on; names what to record, and how many steps.
      model: network.
      signature: shapes that the model was built for.
      optimizer: reads the moments.
      first_step: index in the run of the first step that is left.
      workdir: run directory, which gets trace/; None on processes that do not write.

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
        is_on = experiment.record != "off" and workdir
        self.left = experiment.record_steps if is_on else 0
        self._work = work
        self._optimizer = optimizer
        self._next = 0
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
        """Runs and records as many of an epoch's steps as are left, at least one.

        Args:
          state: replicated over the devices.
          ids: [steps, batch] sample ids of global batches.

        Returns:
          The replicated state, and a StepResult of arrays [steps recorded].
        """
        results = []
        microbatches = self._work.experiment.accumulation_steps
        for batch in ids[: self.left]:
            # The recorded step donates nothing, so the state before it can be read.
            before = parallel.first(state)
            state, result, grads, *activations = self._run_step(state, batch)
            after, result, grads = parallel.first((state, result, grads))
            tensors = step_tensors(self._optimizer, before, after, batch, result, grads)
            # In the order in which both stacks list them; JAX has sorted the names.
            tensors["params"] = {name: tensors["params"][name] for name in self._names}
            tensors |= self._given(tensors["batch/ids"])
            if activations:
                samples = len(tensors["batch/ids"])
                tensors["activations"] = join_rows(
                    activations[0], samples, microbatches
                )
            self._writer.write(self._next, tensors)
            results.append(result)
            self._next += 1
        self.left -= len(results)
        return state, jax.tree.map(lambda *steps: np.stack(steps), *results)

    def _given(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what samples [samples] are, in few numbers."""
        given = self._work.train.read(ids)
        inputs = gathering.scale_bytes(given.inputs, given.scaling)
        return batch_summary(np.asarray(inputs), given.targets)

    def _run_step(self, state: TrainState, batch: np.ndarray) -> Any:
        """Puts a global batch [batch] on the devices and runs one step."""
        work = self._work
        places, own = parallel.put_rows(work.train, work.shard(batch), work.devices)
        return self._step(state, places, own, work.learning_rates)


def make_step(
    experiment: Experiment,
    model: nn.Module,
    optimizer: Optimizer,
    devices: Devices,
) -> Callable:
    """Returns the training step, with the layers' outputs under `--record=full`."""
    step = functools.partial(
        train_step.train_step,
        experiment,
        model,
        optimizer,
        axis_name=parallel.AXIS,
        with_activations=experiment.record == "full",
    )
    return parallel.make_recorded_step(step, devices)


def parameter_names(model: nn.Module, signature: Signature) -> list[str]:
    """Returns flat names in the order in which the network makes its parameters."""
    names = []

    # A side effect under tracing, because JAX sorts mappings that leave a transformed
    # function by name.
    def note() -> None:
        variables = train_step.initial_variables(model, 0, signature)
        names.extend(trace.flatten(variables["params"]))

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
    """Returns one step by the trace's names (experiment/files/trace.py).

    Activations are left to the caller.

    Args:
      optimizer: reads the moments.
      before: state before the step.
      after: state after it.
      ids: [batch] sample ids of the global batch.
      result: what the step reported.
      grads: unscaled gradients.
    """
    return {
        "batch/ids": ids[ids >= 0],
        "params": trace.flatten(before.params),
        "batch_stats": before.batch_stats,
        "moments": optimizer.moments(before.opt_state)._asdict(),
        "optimizer_step": before.updates,
        "loss": result.loss,
        "grads": grads,
        "grad_norm": trace.grad_norm(jax.tree.leaves(grads), bool(result.skipped)),
        "loss_scale": result.loss_scale,
        "skipped": result.skipped,
        "learning_rate": result.learning_rate,
        "updated": after.params,
        "updated_batch_stats": after.batch_stats,
        "updated_moments": optimizer.moments(after.opt_state)._asdict(),
    }


def join_rows(
    activations: Mapping[str, jax.Array], samples: int, microbatches: int = 1
) -> dict[str, np.ndarray]:
    """Joins the rows of all microbatches and devices, in the order of the global batch.

    Args:
      activations: {layer: [devices, rows of all microbatches, ...]}, any dtype.
      samples: rows to keep; the rest are padding.
      microbatches: number of microbatches.

    Returns:
      {layer: [samples, ...]} in at least float32.
    """
    joined = {
        layer: parallel.unshard(
            rows.reshape(len(rows), microbatches, -1, *rows.shape[2:]), samples
        )
        for layer, rows in activations.items()
    }
    # Converted here and not on the device, where XLA would drop the rounding to FP16
    # before a conversion to float32.
    return {
        layer: rows.astype(np.promote_types(rows.dtype, np.float32))
        for layer, rows in joined.items()
    }

"""Records steps into the trace of a run (`--record`). Twin of
jaxnn/recording.py."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from jaxnn.experiment.files import trace
from jaxnn.experiment.files.batch_summary import KINDS, batch_summary
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from torch_ref import engine_readers, layer_outputs, params_io, ranks, train_step
from torch_ref.optimizers import MOMENT_KEYS
from torch_ref.train_step import Batch, StepResult


class Recorder:
    """Records the first `--record_steps` steps that a run, or a resumed one, has left.

    Without `--record` it records none. A trace counts its steps from 0.

    Args:
      experiment: what to record, and how many steps.
      rank: index of this process; every rank takes part in the reading.
      world_size: number of ranks.
      first_step: index in the run of the first step that is left.
      workdir: run directory, which gets trace/; None on ranks that do not write.
    """

    def __init__(
        self,
        experiment: Experiment,
        rank: int,
        world_size: int,
        first_step: int,
        workdir: pathlib.Path | None,
    ):
        steps = experiment.record_steps if experiment.record != "off" else 0
        self._experiment = experiment
        self._rank = rank
        self._world_size = world_size
        self._first = first_step
        self._end = first_step + steps
        self._writer = None
        if steps and workdir:
            meta = dict(
                stack="torch",
                precision=experiment.precision,
                world_size=world_size,
                steps=steps,
                first_step=first_step,
                flags=options.to_flagfile(experiment).splitlines(),
                versions=run_log.versions(("torch", "deepspeed")),
            )
            self._writer = trace.Writer(workdir / "trace", experiment.record, meta)

    def wants(self, step: int) -> bool:
        """True if this step of the run is to be recorded.

        Called at the beginning of every step; `faults.planting` patches it on the
        instance to learn where the run is.
        """
        return step < self._end

    def run(
        self,
        engine: Any,
        batch: Batch,
        ids: np.ndarray,
        step: int,
        learning_rate: float,
    ) -> StepResult:
        """Runs and records one step.

        Args:
          engine: as from `engine.initialize`.
          batch: this rank's rows.
          ids: [batch] sample ids of the global batch.
          step: index of the step in the run.
          learning_rate: rate of this step.
        """
        # A copy: the step changes the engine's tensors in place.
        before = self._state(engine)
        with self._watched(engine, batch) as passes:
            result, grads = train_step.train_step(
                self._experiment,
                engine,
                batch,
                step,
                learning_rate,
                self._rank,
                self._world_size,
                with_grads=True,
            )
        after = self._state(engine)
        # Padding has negative ids.
        samples = int(np.count_nonzero(ids >= 0))
        activations = {}
        if passes:
            activations = join_rows(passes, samples, self._world_size)
        given = self._given(batch, samples)
        # All ranks take part in the reading above, one of them in the writing.
        if self._writer:
            grads = params_io.to_flax(engine.module, grads)
            tensors = step_tensors(before, after, ids, result, grads)
            tensors["activations"] = activations
            tensors |= given
            self._writer.write(step - self._first, tensors)
        return result

    def _given(self, batch: Batch, samples: int) -> dict[str, np.ndarray]:
        """Returns what all ranks' batch holds, in few numbers."""
        parts = self._experiment.accumulation_steps
        rows = {
            name: array.reshape(parts, -1, *array.shape[1:]).unbind()
            for name, array in zip(KINDS, batch)
        }
        passes = [dict(zip(rows, part)) for part in zip(*rows.values())]
        return batch_summary(**join_rows(passes, samples, self._world_size))

    def _watched(
        self, engine: Any, batch: Batch
    ) -> contextlib.AbstractContextManager[list[layer_outputs.Outputs]]:
        """Collects the outputs of the layers under `--record=full`."""
        if self._experiment.record != "full":
            return contextlib.nullcontext([])
        rows = len(batch.weights) // self._experiment.accumulation_steps
        names = params_io.layer_names(engine.module)
        return layer_outputs.capture(engine.module, rows, names)

    def _state(self, engine: Any) -> dict[str, Any]:
        model = engine.module
        keys = MOMENT_KEYS[self._experiment.optimizer]
        return {
            "params": params_io.to_flax(model, engine_readers.masters(engine)),
            "batch_stats": params_io.stats_to_flax(model),
            "moments": {
                name: params_io.to_flax(model, engine_readers.moments(engine, key))
                for name, key in keys.items()
            },
            "updates": engine_readers.updates(engine),
        }


def step_tensors(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    ids: np.ndarray,
    result: StepResult,
    grads: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Returns one step by the trace's names (experiment/files/trace.py).

    Activations are left to the caller.

    Args:
      before: state before the step.
      after: state after it.
      ids: [batch] sample ids of the global batch.
      result: what the step reported.
      grads: unscaled gradients by Flax's names.
    """
    return {
        "batch/ids": ids[ids >= 0],
        "params": before["params"],
        "batch_stats": before["batch_stats"],
        "moments": before["moments"],
        "optimizer_step": np.int32(before["updates"]),
        "loss": result.loss.float().cpu().numpy(),
        "grads": grads,
        "grad_norm": trace.grad_norm(grads.values(), result.skipped),
        "loss_scale": np.float32(result.loss_scale),
        "skipped": np.bool_(result.skipped),
        "learning_rate": np.float32(result.learning_rate),
        "updated": after["params"],
        "updated_batch_stats": after["batch_stats"],
        "updated_moments": after["moments"],
    }


def join_rows(
    passes: Sequence[layer_outputs.Outputs], samples: int, world_size: int
) -> dict[str, np.ndarray]:
    """Joins the rows of all microbatches and ranks, in the order of the global batch.

    Args:
      passes: {layer: [rows, ...]} of each microbatch of this rank.
      samples: rows to keep; the rest are padding.
      world_size: number of ranks.

    Returns:
      {layer: [samples, ...]}, on every rank.
    """
    microbatches = {
        layer: torch.stack([outputs[layer] for outputs in passes])
        for layer in passes[0]
    }
    return {
        layer: ranks.join_rows(rows, world_size).flatten(0, 1)[:samples].cpu().numpy()
        for layer, rows in microbatches.items()
    }

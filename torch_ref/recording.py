"""Writes steps into the workdir's trace (`--record`). Twin of jaxnn/recording.py."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jaxnn.experiment.files import trace
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from torch_ref import engine as engines
from torch_ref import layer_outputs, params_io
from torch_ref.optimizers import MOMENT_KEYS
from torch_ref.train_step import Batch, StepResult, train_step


class Recorder:
    """Records the first `--record_steps` steps of a run, or of what a resumed one has
    left; without `--record` none.

    A trace counts its steps from 0.

    Args:
      experiment: what to record and for how long.
      rank: of this process; every rank takes part in the reading.
      world_size: ranks in all.
      first_step: of the run, or of what is left of it.
      workdir: the trace goes to its trace/ folder; None on other ranks.
    """

    def __init__(
        self,
        experiment: Experiment,
        rank: int,
        world_size: int,
        first_step: int,
        workdir: pathlib.Path | None,
    ):
        self._experiment, self._rank, self._world_size = experiment, rank, world_size
        steps = experiment.record_steps if experiment.record != "off" else 0
        self._first, self._end, self._writer = first_step, first_step + steps, None
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
        """Whether this step of the run, counted from 0, is to be recorded; asked at the
        beginning of every step."""
        return step < self._end

    def run(
        self,
        engine: Any,
        batch: Batch,
        ids: np.ndarray,
        step: int,
        learning_rate: float,
    ) -> StepResult:
        """Takes one step and writes it.

        Args:
          engine: of `engine.initialize`.
          batch: this rank's rows.
          ids: [batch] global batch.
          step: counted from 0.
          learning_rate: of this step.
        """
        before = self._state(engine)
        with self._watched(engine, batch) as passes:
            result, grads = train_step(
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
        activations = (
            join_rows(passes, np.count_nonzero(ids >= 0), self._world_size)
            if passes
            else {}
        )
        if self._writer:
            grads = params_io.to_flax(engine.module, grads)
            tensors = step_tensors(before, after, ids, result, grads)
            self._writer.write(
                step - self._first, tensors | {"activations": activations}
            )
        return result

    def _watched(
        self, engine: Any, batch: Batch
    ) -> contextlib.AbstractContextManager[list[layer_outputs.Outputs]]:
        """Lets the layers be seen under `--record=full`."""
        if self._experiment.record != "full":
            return contextlib.nullcontext([])
        return layer_outputs.capture(
            engine.module, len(batch.weights) // self._experiment.accumulation_steps
        )

    def _state(self, engine: Any) -> dict[str, Any]:
        model, keys = engine.module, MOMENT_KEYS[self._experiment.optimizer]
        return {
            "params": params_io.to_flax(model, engines.masters(engine)),
            "batch_stats": params_io.stats_to_flax(model),
            "moments": {
                name: params_io.to_flax(model, engines.moments(engine, key))
                for name, key in keys.items()
            },
            "updates": engines.updates(engine),
        }


def step_tensors(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    ids: np.ndarray,
    result: StepResult,
    grads: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """One step in the trace's terms, without its activations; see
    `experiment/trace.py`."""
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
    passes: list[layer_outputs.Outputs], samples: int, world_size: int
) -> dict[str, np.ndarray]:
    """[rows, ...] of each layer in the passes of this rank -> [samples, ...] of all
    ranks, on every one of them."""
    parts = {
        layer: torch.stack([outputs[layer] for outputs in passes])
        for layer in passes[0]
    }
    return {
        layer: engines.join_rows(rows, world_size).flatten(0, 1)[:samples].cpu().numpy()
        for layer, rows in parts.items()
    }

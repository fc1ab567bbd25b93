"""A run's state out of DeepSpeed's files and into an engine, in the terms of
`jaxnn.experiment.files.handoff`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxnn.experiment.files import handoff
from jaxnn.experiment.files.trace import select
from jaxnn.experiment.flags.config import Experiment
from torch_ref import deepspeed_files, engine_state, optimizers, params_io
from torch_ref.deepspeed_files import Checkpoint

NO_HYSTERESIS = 1
"""DeepSpeed without ZeRO halves the loss scale at the first overflow (MISMATCHES D4).
"""


def from_files(
    experiment: Experiment, checkpoint: Checkpoint, model: nn.Module
) -> handoff.Handoff:
    """The state that a checkpoint holds.

    Args:
      experiment: that was trained.
      checkpoint: of any ZeRO stage and number of ranks.
      model: the experiment's, on the CPU, of any values.

    Raises:
      UserError: the checkpoint is of another model.
    """
    deepspeed_files.check(checkpoint, model)
    groups = parameter_groups(experiment, model)
    step = checkpoint.common["global_steps"]
    updates = step - checkpoint.common["skipped_steps"]
    counter = deepspeed_files.counter(checkpoint)
    params = params_io.to_flax(model, deepspeed_files.masters(checkpoint, groups))
    moments = {}
    for moment, key in optimizers.MOMENT_KEYS[experiment.optimizer].items():
        tensors = params_io.to_flax(
            model, deepspeed_files.moments(checkpoint, groups, key)
        )
        moments[moment] = tensors or {
            name: np.zeros_like(array) for name, array in params.items()
        }
    stats = {
        name: checkpoint.common["module"][name]
        for name in params_io.flax_stats_names(model)
    }
    return handoff.make(
        params,
        params_io.to_flax(model, stats),
        moments,
        step=step,
        updates=updates,
        optimizer_step=updates if counter is None else counter,
        **_scaler(experiment, checkpoint),
    )


def into_engine(
    experiment: Experiment,
    arrays: Mapping[str, np.ndarray],
    engine: Any,
    model: nn.Module,
) -> None:
    """Puts a state into a fresh engine, of any ZeRO stage; every rank takes part.

    Args:
      experiment: that is trained.
      arrays: the state.
      engine: of `engine.initialize`.
      model: the experiment's, on the CPU; its values are overwritten.
    """
    source = "the checkpoint"
    params = _whole(model, select(arrays, "params"), source)
    count = int(arrays["optimizer_step"])
    moments = (
        {
            optimizers.MOMENT_KEYS[experiment.optimizer][name]: _whole(
                model, values, source
            )
            for name, values in handoff.moments_of(arrays).items()
            if values
        }
        if count
        else {}
    )
    engine_state.put_tensors(engine, params, moments, count)
    params_io.load_stats(engine.module, select(arrays, "batch_stats"), source)
    engine_state.put_counters(
        engine, int(arrays["step"]), int(arrays["updates"]), experiment.batch_size
    )
    if experiment.precision == "fp16":
        engine_state.put_scaler(
            engine,
            *(
                arrays[name].item()
                for name in ("loss_scale", "step", "clean_steps", "hysteresis")
            ),
        )


def parameter_groups(
    experiment: Experiment, model: nn.Module
) -> list[deepspeed_files.Shapes]:
    """{torch name: shape} of each of the optimizer's parameter groups."""
    names = {param: name for name, param in model.named_parameters()}
    return [
        {names[param]: tuple(param.shape) for param in group["params"]}
        for group in optimizers.groups(experiment, model.parameters())
    ]


def _scaler(experiment: Experiment, checkpoint: Checkpoint) -> dict[str, float]:
    """The loss scaler; DeepSpeed counts iterations, and remembers at which the last
    overflow was."""
    if experiment.precision != "fp16":
        return dict(loss_scale=1, clean_steps=0, hysteresis=experiment.hysteresis)
    scaler = checkpoint.scaler
    clean = (
        scaler["cur_iter"] - scaler["last_overflow_iter"] - 1
        if "last_overflow_iter" in scaler
        else 0
    )
    without = experiment.hysteresis if experiment.static_loss_scale else NO_HYSTERESIS
    return dict(
        loss_scale=scaler["cur_scale"],
        clean_steps=clean,
        hysteresis=scaler.get("cur_hysteresis", without),
    )


def _whole(
    model: nn.Module, arrays: Mapping[str, np.ndarray], source: str
) -> dict[str, torch.Tensor]:
    """Flat Flax arrays, shaped like the parameters, in torch's names and layouts."""
    params_io.load(model, arrays, source)
    return {name: param.detach().clone() for name, param in model.named_parameters()}

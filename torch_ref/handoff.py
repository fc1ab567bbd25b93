"""Hands a run's state over: out of DeepSpeed's files, into DeepSpeed's engine.

The state's names stand in jaxnn/experiment/files/handoff.py.
"""

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
    """Returns the state that a checkpoint holds.

    Args:
      experiment: what was trained.
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
        found = deepspeed_files.moments(checkpoint, groups, key)
        # There are none before the first update, where jaxnn's are zeros.
        moments[moment] = params_io.to_flax(model, found) or {
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
    """Puts a state into a fresh engine, at any ZeRO stage; every rank takes part.

    Args:
      experiment: what is trained.
      arrays: the state.
      engine: as from `engine.initialize`.
      model: the experiment's, on the CPU; its values are overwritten.
    """
    source = "the checkpoint"
    params = _whole(model, select(arrays, "params"), source)
    count = int(arrays["optimizer_step"])
    moments = {}
    # Before the first update torch's optimizers have no state.
    if count:
        keys = optimizers.MOMENT_KEYS[experiment.optimizer]
        for name, values in handoff.moments_of(arrays).items():
            if values:
                moments[keys[name]] = _whole(model, values, source)
    engine_state.put_tensors(engine, params, moments, count)
    params_io.load_stats(engine.module, select(arrays, "batch_stats"), source)
    engine_state.put_counters(
        engine, int(arrays["step"]), int(arrays["updates"]), experiment.batch_size
    )
    if experiment.precision == "fp16":
        engine_state.put_scaler(
            engine,
            scale=arrays["loss_scale"].item(),
            step=arrays["step"].item(),
            clean_steps=arrays["clean_steps"].item(),
            hysteresis=arrays["hysteresis"].item(),
        )


def parameter_groups(
    experiment: Experiment, model: nn.Module
) -> list[deepspeed_files.Shapes]:
    """Returns {torch name: shape} of each of the optimizer's parameter groups."""
    names = {param: name for name, param in model.named_parameters()}
    return [
        {names[param]: tuple(param.shape) for param in group["params"]}
        for group in optimizers.groups(experiment, model.parameters())
    ]


def _scaler(experiment: Experiment, checkpoint: Checkpoint) -> dict[str, float]:
    """Returns the loss scaler's state by the names of a handoff."""
    if experiment.precision != "fp16":
        return dict(loss_scale=1, clean_steps=0, hysteresis=experiment.hysteresis)
    scaler = checkpoint.scaler
    clean_steps = 0
    # DeepSpeed counts iterations, and remembers that of the last overflow.
    if "last_overflow_iter" in scaler:
        clean_steps = scaler["cur_iter"] - scaler["last_overflow_iter"] - 1
    without = experiment.hysteresis if experiment.static_loss_scale else NO_HYSTERESIS
    return dict(
        loss_scale=scaler["cur_scale"],
        clean_steps=clean_steps,
        hysteresis=scaler.get("cur_hysteresis", without),
    )


def _whole(
    model: nn.Module, arrays: Mapping[str, np.ndarray], source: str
) -> dict[str, torch.Tensor]:
    """Returns arrays shaped like the parameters, in torch's names and layouts."""
    # Through the model's parameters, so that params_io alone knows the layouts.
    params_io.load(model, arrays, source)
    return {name: param.detach().clone() for name, param in model.named_parameters()}

"""jaxnn's training state in the terms of `jaxnn.experiment.files.handoff`, and back.
Its partner is torch_ref/handoff.py."""

from collections.abc import Mapping

import numpy as np

from jaxnn.experiment.files import handoff, trace
from jaxnn.experiment.files.handoff import Handoff
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale
from jaxnn.optimizers import OPTIMIZERS, Moments
from jaxnn.train_step import TrainState


def from_handoff(
    experiment: Experiment, arrays: Mapping[str, np.ndarray]
) -> TrainState:
    """jaxnn's state, its structure and formats those of a fresh one."""
    moments = Moments(
        **{
            name: trace.unflatten(values)
            for name, values in handoff.moments_of(arrays).items()
        }
    )
    params, stats = (
        trace.unflatten(trace.select(arrays, kind))
        for kind in ("params", "batch_stats")
    )
    scale = LossScale(
        *(arrays[name] for name in ("loss_scale", "clean_steps", "hysteresis"))
    )
    opt_state = OPTIMIZERS[experiment.optimizer](experiment).with_moments(
        moments, arrays["optimizer_step"]
    )
    return TrainState(
        params, stats, opt_state, scale, arrays["step"], arrays["updates"]
    )


def to_handoff(experiment: Experiment, state: TrainState) -> Handoff:
    """The reverse of `from_handoff`; where the optimizer keeps no counter of its own,
    it is the updates'."""
    moments = (
        OPTIMIZERS[experiment.optimizer](experiment).moments(state.opt_state)._asdict()
    )
    scale = state.loss_scale
    count = (
        state.opt_state.count if "count" in state.opt_state._fields else state.updates
    )
    return handoff.make(
        trace.flatten(state.params),
        trace.flatten(state.batch_stats),
        {name: trace.flatten(tree) for name, tree in moments.items()},
        step=state.step,
        updates=state.updates,
        optimizer_step=count,
        loss_scale=scale.scale,
        clean_steps=scale.clean_steps,
        hysteresis=scale.hysteresis,
    )

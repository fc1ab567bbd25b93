"""What varying a flag changes: the data, the start, numbers in a step, or the program.

Networks that differ in the program alone need programs of their own; everything else
differs within one.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxnn.experiment.catalogue import is_own
from jaxnn.experiment.flags.config import Experiment
from jaxnn.precision import POLICIES
from jaxnn.settings import Setting

READ_ON_HOST = (
    "learning_rate",
    "min_learning_rate",
    "final_learning_rate",
    "schedule",
    "warmup_steps",
    "warmup_type",
    "schedule_steps",
    "decay_rate",
    "decay_steps",
    "patience",
    "min_delta",
)
"""A table of rates, and when to stop: no step reads these."""
OF_THE_START = ("initializer", "adagrad_initial", "initial_scale_power")
"""Of the state before the first step alone."""
OF_THE_SPLIT = (
    "test_fraction",
    "validation_fraction",
    "split_seed",
    "num_folds",
    "fold",
)
"""Which samples are for what; the data set itself stays."""
NUMBERS = (
    "seed",
    "adam_eps",
    "rmsprop_eps",
    "adagrad_eps",
    "leaky_relu_alpha",
)
"""A step computes with them, whatever their value."""
SWITCHES = ("l1", "l2", "weight_decay", "clip_norm", "label_smoothing")
"""So it does with these, unless they are 0 and leave something out."""
IDLE = (
    "name",
    "num_devices",
    "device_cache_mb",
    "zero_stage",
    "fp16_kernels",
    "ds_extra",
    "checkpoint_every",
    "keep",
    "evaluate_train",
    "plots",
)
"""Beside those of a single run, flags that change no result: no axes."""
OF_THE_TASK = ("dataset", "task", "target", "positive_class")
"""What is learned: neither losses nor metrics compare."""
OF_THE_LOSS = ("loss", "label_smoothing")
"""What the loss is: losses do not compare, metrics do."""
DROPPED = 0.5
"""A dropout rate other than 0, where its value does not matter."""


def is_axis(field: dataclasses.Field) -> bool:
    """Returns whether varying a flag makes sense."""
    return not field.metadata["run_only"] and field.name not in IDLE


def numbers(experiment: Experiment) -> tuple[str, ...]:
    """Returns the flags whose values may differ between networks of a program."""
    found = [*NUMBERS, *SWITCHES]
    # Where 1 - b is rounded once from double, an array of float32 has lost its digits.
    if experiment.fused_adam:
        found += ["adam_b1", "adam_b2"]
    if experiment.optimizer != "ema_momentum":
        found.append("momentum")
    # A network of one's own may ask whether a rate is 0.
    if not is_own(experiment.model):
        found.append("dropout_rates")
    return tuple(found)


def program(experiment: Experiment) -> Experiment:
    """Returns the experiment without what differs within a program.

    Two experiments are trained by one program if they are equal here, and their data
    of one shape.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Experiment)}
    varied = (*READ_ON_HOST, *OF_THE_START, *OF_THE_SPLIT, *numbers(experiment))
    neutral = {name: defaults[name] for name in varied}
    neutral |= {name: float(bool(getattr(experiment, name))) for name in SWITCHES}
    if "dropout_rates" in neutral:
        neutral["dropout_rates"] = tuple(
            DROPPED if rate else 0.0 for rate in experiment.dropout_rates
        )
    return experiment.replace(**neutral)


def varying(experiments: list[Experiment]) -> tuple[str, ...]:
    """Returns the numbers in which experiments of one program differ."""
    return tuple(
        name
        for name in numbers(experiments[0])
        if len({getattr(experiment, name) for experiment in experiments}) > 1
    )


def as_arrays(experiment: Experiment, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns numbers of an experiment in the dtype in which a step has them.

    Dropout rates are [layers], all others ().
    """
    dtype = np.dtype(POLICIES[experiment.precision].master)
    return {name: _as_array(name, getattr(experiment, name), dtype) for name in names}


def with_settings(experiment: Experiment, settings: dict[str, Setting]) -> Experiment:
    """Returns an experiment with the numbers of `as_arrays` in their places."""
    settings = dict(settings)
    if "dropout_rates" in settings:
        rates = settings["dropout_rates"]
        # One that is off stays a constant: it leaves out a layer.
        settings["dropout_rates"] = tuple(
            rates[layer] if rate else 0.0
            for layer, rate in enumerate(experiment.dropout_rates)
        )
    return experiment.replace(**settings)


def _as_array(name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    if name == "seed":
        return np.asarray(value, np.int32)
    if name == "dropout_rates":
        # Masks compare with 1 - rate, rounded once; this is exact where that is above
        # a half, and else as near as may be.
        value = 1 - (1 - np.asarray(value, np.float64)).astype(dtype)
    return np.asarray(value, dtype)

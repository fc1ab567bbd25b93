"""Experiment -> one float32 learning rate per optimizer step: the table that both stacks read.

A skipped (overflowed) step does not advance the table, as in DeepSpeed (MISMATCHES D9).
"""

import numpy as np

from jaxnn.experiment.config import Experiment


def learning_rates(experiment: Experiment, num_steps: int) -> np.ndarray:
    """[num_steps] float32 learning rates, computed in float64 and rounded once."""
    progress = np.arange(num_steps) / num_steps
    return (experiment.learning_rate * SCHEDULES[experiment.schedule](progress)).astype(np.float32)


def constant(progress: np.ndarray) -> np.ndarray:
    """1 throughout."""
    return np.ones_like(progress)


def cosine(progress: np.ndarray) -> np.ndarray:
    """(1 + cos(pi t)) / 2: from 1 to almost 0 (Loshchilov & Hutter 2017, eq. 5, one cycle)."""
    return 0.5 * (1 + np.cos(np.pi * progress))


SCHEDULES = {"constant": constant, "cosine": cosine}

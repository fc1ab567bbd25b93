"""Experiment -> one float32 learning rate per optimizer step: the table that both
stacks read.

A skipped (overflowed) step does not advance the table, as in DeepSpeed (MISMATCHES D9).
Below, t counts the steps from 0, T is the run's length (or `--schedule_steps`), W is
`--warmup_steps`, and lr goes between `--learning_rate` (peak) and `--min_learning_rate`
(floor).
"""

from collections.abc import Callable

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4
WITH_WARMUP = (
    "linear_warmup",
    "warmup_cosine",
    "warmup_lr",
    "warmup_decay_lr",
    "warmup_cosine_lr",
)
WITH_FLOOR = ("cosine", *WITH_WARMUP)
WITH_END = (
    "cosine",
    "warmup_cosine",
    "one_cycle",
    "warmup_decay_lr",
    "warmup_cosine_lr",
)


def learning_rates(experiment: Experiment, num_steps: int) -> np.ndarray:
    """[num_steps] float32 learning rates, computed in float64 and rounded once.

    Raises:
      UserError: the warm-up is missing or does not fit into the run, the schedule has
        no use for a flag or ends before the run, or a rate is beyond float32.
    """
    total = experiment.schedule_steps or num_steps
    _check(experiment, total, num_steps)
    with np.errstate(over="ignore"):
        table = SCHEDULES[experiment.schedule](experiment, total)[:num_steps].astype(
            np.float32
        )
    finite = np.isfinite(table)
    if not finite.all():
        raise UserError(
            f"--decay_rate: {experiment.decay_rate:g} every {experiment.decay_steps} "
            f"steps takes the learning rate beyond float32 at step {finite.argmin()} "
            f"of {num_steps}; lower it"
        )
    return table


def constant(experiment: Experiment, num_steps: int) -> np.ndarray:
    """The peak throughout."""
    return np.full(num_steps, experiment.learning_rate)


def step(experiment: Experiment, num_steps: int) -> np.ndarray:
    """peak * decay_rate ** floor(t / decay_steps): torch's StepLR."""
    drops = np.arange(num_steps) // experiment.decay_steps
    return experiment.learning_rate * experiment.decay_rate ** drops.astype(np.float64)


def exponential(experiment: Experiment, num_steps: int) -> np.ndarray:
    """peak * decay_rate ** (t / decay_steps), without stairs; torch's ExponentialLR
    where decay_steps is 1."""
    return experiment.learning_rate * experiment.decay_rate ** (
        np.arange(num_steps) / experiment.decay_steps
    )


def cosine(experiment: Experiment, num_steps: int) -> np.ndarray:
    """Half a cosine from the peak to the floor, which t = T would reach.

    One cycle of Loshchilov & Hutter 2017, eq. 5; torch's CosineAnnealingLR.
    """
    return _anneal(
        experiment.learning_rate,
        experiment.min_learning_rate,
        np.arange(num_steps) / num_steps,
    )


def linear_warmup(experiment: Experiment, num_steps: int) -> np.ndarray:
    """A line from the floor at t = 0 to the peak at t = W, then the peak."""
    return _line(
        experiment, np.minimum(np.arange(num_steps) / experiment.warmup_steps, 1)
    )


def warmup_cosine(experiment: Experiment, num_steps: int) -> np.ndarray:
    """A line from the floor to the peak at t = W, then half a cosine to the floor,
    which t = T would reach."""
    t, warmup = np.arange(num_steps), experiment.warmup_steps
    fall = _anneal(
        experiment.learning_rate,
        experiment.min_learning_rate,
        (t - warmup) / (num_steps - warmup),
    )
    return np.where(t < warmup, _line(experiment, t / warmup), fall)


def one_cycle(experiment: Experiment, num_steps: int) -> np.ndarray:
    """Half a cosine from peak / 25 up, half a cosine down to 1e-4 of where it began
    (Smith & Topin 2018).

    torch's OneCycleLR with its default factors and without its cycle of the momentum.
    The peak is at t = W - 1, or after 30% of the run without `--warmup_steps`; t = T -
    1 is the end.
    """
    t, peak = np.arange(num_steps), experiment.learning_rate
    start = peak * ONE_CYCLE_START
    top = (experiment.warmup_steps or ONE_CYCLE_RISE * num_steps) - 1
    fall = _anneal(peak, start * ONE_CYCLE_END, (t - top) / (num_steps - 1 - top))
    return np.where(t <= top, _anneal(start, peak, t / top), fall)


def warmup_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupLR: a curve (`--warmup_type`) from the floor to the peak, then
    the peak.

    Its scheduler is one call behind the optimizer and starts at the floor, so that two
    steps are taken there (MISMATCHES D9, D16); its log curve ends at t = W, its line
    one step later. A warm-up of one step is taken as two. The run may end before the
    peak, which DeepSpeed's default of 1000 steps is apt to cause.
    """
    return _line(
        experiment,
        np.where(
            _calls(num_steps) < _warmup(experiment), _curve(experiment, num_steps), 1
        ),
    )


def warmup_decay_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupDecayLR: `warmup_lr`, then a line back to the floor, which t =
    T + 1 would reach."""
    calls, warmup = _calls(num_steps), _warmup(experiment)
    fall = np.maximum((num_steps - calls) / max(1, num_steps - warmup), 0)
    return _line(
        experiment, np.where(calls < warmup, _curve(experiment, num_steps), fall)
    )


def warmup_cosine_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupCosineLR: the warm-up of `warmup_lr`, then half a cosine to the
    floor, reached at t = T.

    It counts in ratios of the peak: warmup_min_ratio is floor / peak, and so is
    cos_min_ratio (DeepSpeed's default of which is 1e-4) unless `--final_learning_rate`
    is another. The first step is taken at 0, whatever the floor.
    """
    calls, warmup = _calls(num_steps), _warmup(experiment)
    progress = np.minimum((calls - warmup + 1) / max(1, num_steps - warmup), 1)
    end = experiment.final_learning_rate or experiment.min_learning_rate
    fall = _anneal(experiment.learning_rate, end, progress)
    rates = np.where(
        calls < warmup, _line(experiment, _curve(experiment, num_steps)), fall
    )
    return np.where(np.arange(num_steps) == 0, 0, rates)


def _line(experiment: Experiment, share: np.ndarray) -> np.ndarray:
    """From the floor at 0 to the peak at 1."""
    return (
        experiment.min_learning_rate
        + (experiment.learning_rate - experiment.min_learning_rate) * share
    )


def _anneal(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """From `start` at 0 to `end` at 1 along half a cosine."""
    return end + (start - end) * (0.5 * (1 + np.cos(np.pi * progress)))


def _calls(num_steps: int) -> np.ndarray:
    """The scheduler's count (last_batch_iteration) at each step; the first two steps
    see the same rate."""
    return np.maximum(np.arange(num_steps) - 1, 0)


def _warmup(experiment: Experiment) -> int:
    return max(2, experiment.warmup_steps)


def _curve(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's warm-up from 0 to 1."""
    calls, warmup = _calls(num_steps), _warmup(experiment)
    return (
        np.log(calls + 1) / np.log(warmup)
        if experiment.warmup_type == "log"
        else calls / warmup
    )


def _check(experiment: Experiment, total: int, num_steps: int) -> None:
    _check_warmup(experiment, total)
    schedule = experiment.schedule
    if experiment.schedule_steps and schedule not in WITH_END:
        raise UserError(
            f"--schedule_steps: --schedule={schedule} has no end; leave it out"
        )
    if total < num_steps:
        raise UserError(
            f"--schedule_steps: the schedule ends after {total} of the run's "
            f"{num_steps} steps; raise it or lower --epochs"
        )
    if experiment.final_learning_rate and schedule != "warmup_cosine_lr":
        raise UserError(
            f"--final_learning_rate: --schedule={schedule} has no use for it; leave it "
            "out"
        )


def _check_warmup(experiment: Experiment, num_steps: int) -> None:
    schedule, warmup = experiment.schedule, experiment.warmup_steps
    if experiment.min_learning_rate and schedule not in WITH_FLOOR:
        raise UserError(
            f"--min_learning_rate: --schedule={schedule} has no use for it; leave it "
            "out"
        )
    if schedule in WITH_WARMUP and warmup == 0:
        raise UserError(
            f"--warmup_steps: --schedule={schedule} needs the number of steps until "
            "the peak, at least 1"
        )
    if schedule == "one_cycle" and warmup == 1:
        raise UserError(
            "--warmup_steps: --schedule=one_cycle needs at least 2 steps until the "
            "peak, or 0 for 30% of the run"
        )
    if (
        schedule in (*WITH_WARMUP, "one_cycle")
        and schedule != "warmup_lr"
        and warmup >= max(num_steps, 1)
    ):
        raise UserError(
            f"--warmup_steps: {warmup} steps until the peak do not fit into a run of "
            f"{num_steps}; lower it or raise --epochs"
        )


SCHEDULES: dict[str, Callable[[Experiment, int], np.ndarray]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "linear_warmup": linear_warmup,
    "warmup_cosine": warmup_cosine,
    "one_cycle": one_cycle,
    "warmup_lr": warmup_lr,
    "warmup_decay_lr": warmup_decay_lr,
    "warmup_cosine_lr": warmup_cosine_lr,
}

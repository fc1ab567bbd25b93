"""Learning rate schedules: one float32 rate per optimizer step, shared by both stacks.

A schedule is a table and not a function of the step, so that both stacks multiply by
the same bits. A skipped (overflowed) step does not advance it, as in DeepSpeed
(MISMATCHES D9).

Below, t is the step, from 0; T the length of the schedule (`--schedule_steps`, or the
number of steps in the run); W is `--warmup_steps`. The peak is `--learning_rate`, the
floor `--min_learning_rate`.
"""

from collections.abc import Callable

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# Defaults of torch.optim.lr_scheduler.OneCycleLR: pct_start, and the reciprocals of
# div_factor (25) and final_div_factor (1e4).
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-4

# Schedules that cannot do without --warmup_steps.
WITH_WARMUP = (
    "linear_warmup",
    "warmup_cosine",
    "warmup_lr",
    "warmup_decay_lr",
    "warmup_cosine_lr",
)

# Schedules that must reach their peak.
FITTING = ("linear_warmup", "warmup_cosine", "one_cycle")

# Schedules that read --min_learning_rate.
WITH_FLOOR = ("cosine", *WITH_WARMUP)

# Schedules whose shape depends on T, that is, on --schedule_steps.
WITH_END = (
    "cosine",
    "warmup_cosine",
    "one_cycle",
    "warmup_decay_lr",
    "warmup_cosine_lr",
)


def learning_rates(experiment: Experiment, num_steps: int) -> np.ndarray:
    """Returns the [num_steps] float32 learning rates of a run.

    Rates are computed in float64 and rounded once. A run that `--max_steps` ends before
    its schedule does may be longer than the schedule: the table is as long as that.

    Raises:
      UserError: the warm-up is missing or longer than the run, the schedule does not
        use a given flag or ends before the run, or a rate overflows float32.
    """
    total = experiment.schedule_steps or num_steps
    _check(experiment, total, min(num_steps, experiment.max_steps or num_steps))

    # The check below reports an overflow with the flag to change.
    with np.errstate(over="ignore"):
        table = SCHEDULES[experiment.schedule](experiment, total)
        rates = table[:num_steps].astype(np.float32)

    finite = np.isfinite(rates)
    if not finite.all():
        raise UserError(
            f"--decay_rate: {experiment.decay_rate:g} every {experiment.decay_steps} "
            f"steps takes the learning rate beyond float32 at step {finite.argmin()} "
            f"of {num_steps}; lower it"
        )
    return rates


# Schedules of torch and optax. Each returns [num_steps] float64 rates.


def constant(experiment: Experiment, num_steps: int) -> np.ndarray:
    """The peak at every step."""
    return np.full(num_steps, experiment.learning_rate)


def step(experiment: Experiment, num_steps: int) -> np.ndarray:
    """peak * decay_rate ** floor(t / decay_steps): torch's StepLR."""
    drops = np.arange(num_steps) // experiment.decay_steps
    return experiment.learning_rate * experiment.decay_rate ** drops.astype(np.float64)


def exponential(experiment: Experiment, num_steps: int) -> np.ndarray:
    """peak * decay_rate ** (t / decay_steps): optax's exponential_decay.

    With decay_steps = 1 it is torch's ExponentialLR.
    """
    exponents = np.arange(num_steps) / experiment.decay_steps
    return experiment.learning_rate * experiment.decay_rate**exponents


def cosine(experiment: Experiment, num_steps: int) -> np.ndarray:
    """Half a cosine from the peak at t = 0 to the floor at t = T.

    One cycle of Loshchilov & Hutter 2017, eq. 5; torch's CosineAnnealingLR. The last
    step, t = T - 1, is still above the floor.
    """
    progress = np.arange(num_steps) / num_steps
    return _anneal(experiment.learning_rate, experiment.min_learning_rate, progress)


def linear_warmup(experiment: Experiment, num_steps: int) -> np.ndarray:
    """A line from the floor at t = 0 to the peak at t = W, then the peak."""
    progress = np.arange(num_steps) / experiment.warmup_steps
    return _line(experiment, np.minimum(progress, 1))


def warmup_cosine(experiment: Experiment, num_steps: int) -> np.ndarray:
    """A line from the floor to the peak at t = W, then half a cosine to the floor at T.

    optax's warmup_cosine_decay_schedule.
    """
    t = np.arange(num_steps)
    warmup = experiment.warmup_steps

    rise = _line(experiment, t / warmup)
    progress = (t - warmup) / (num_steps - warmup)
    fall = _anneal(experiment.learning_rate, experiment.min_learning_rate, progress)
    return np.where(t < warmup, rise, fall)


def one_cycle(experiment: Experiment, num_steps: int) -> np.ndarray:
    """Half a cosine from peak / 25 up to the peak, half a cosine down to peak / 250000.

    Smith & Topin 2018; torch's OneCycleLR with its default factors, without its cycle
    of the momentum. The peak is at t = W - 1, or after 30% of the run if W = 0; the end
    is at t = T - 1.
    """
    t = np.arange(num_steps)
    peak = experiment.learning_rate
    start = peak * ONE_CYCLE_START

    # Without --warmup_steps this is a fraction, as in torch: the peak is then between
    # two steps.
    top = (experiment.warmup_steps or ONE_CYCLE_RISE * num_steps) - 1

    rise = _anneal(start, peak, t / top)
    progress = (t - top) / (num_steps - 1 - top)
    fall = _anneal(peak, start * ONE_CYCLE_END, progress)
    return np.where(t <= top, rise, fall)


# DeepSpeed's schedules (runtime/lr_schedules.py), entry for entry.


def warmup_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupLR: a rise from the floor to the peak, then the peak.

    `--warmup_type` is the curve of the rise: "log" reaches the peak at t = W, "linear"
    one step later. The run may end before the peak, which is likely with DeepSpeed's
    default warm-up of 1000 steps.
    """
    is_warm = _scheduler_steps(num_steps) < _warmup_steps(experiment)
    share = np.where(is_warm, _warmup_share(experiment, num_steps), 1)
    return _line(experiment, share)


def warmup_decay_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupDecayLR: the rise of `warmup_lr`, then a line to the floor.

    The line reaches the floor at t = T + 1, after the end of the run, which may come
    before the peak.
    """
    count = _scheduler_steps(num_steps)
    warmup = _warmup_steps(experiment)

    rise = _warmup_share(experiment, num_steps)
    fall = np.maximum((num_steps - count) / max(1, num_steps - warmup), 0)
    return _line(experiment, np.where(count < warmup, rise, fall))


def warmup_cosine_lr(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's WarmupCosineLR: the rise of `warmup_lr`, then half a cosine.

    The cosine reaches `--final_learning_rate` (0: the floor) at t = T. DeepSpeed takes
    ratios of the peak: warmup_min_ratio is floor / peak, cos_min_ratio is final / peak
    (1e-4 by default).
    """
    count = _scheduler_steps(num_steps)
    warmup = _warmup_steps(experiment)

    rise = _line(experiment, _warmup_share(experiment, num_steps))
    progress = np.minimum((count - warmup + 1) / max(1, num_steps - warmup), 1)
    end = experiment.final_learning_rate or experiment.min_learning_rate
    fall = _anneal(experiment.learning_rate, end, progress)
    rates = np.where(count < warmup, rise, fall)

    # Until its first step() the scheduler returns 0, whatever the floor
    # (WarmupCosineLR.get_lr; MISMATCHES D16).
    return np.where(np.arange(num_steps) == 0, 0, rates)


def _line(experiment: Experiment, share: np.ndarray) -> np.ndarray:
    """Linear interpolation from the floor at share 0 to the peak at share 1."""
    floor = experiment.min_learning_rate
    return floor + (experiment.learning_rate - floor) * share


def _anneal(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """Half a cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * (0.5 * (1 + np.cos(np.pi * progress)))


def _scheduler_steps(num_steps: int) -> np.ndarray:
    """[num_steps] int: last_batch_iteration of DeepSpeed's scheduler at each step."""
    # The scheduler steps after the optimizer and counts from -1, where the rate is that
    # of 0: the first two optimizer steps share a rate (MISMATCHES D9, D16).
    return np.maximum(np.arange(num_steps) - 1, 0)


def _warmup_steps(experiment: Experiment) -> int:
    # DeepSpeed lengthens a warm-up of one step: its log curve divides by log(W).
    return max(2, experiment.warmup_steps)


def _warmup_share(experiment: Experiment, num_steps: int) -> np.ndarray:
    """DeepSpeed's warm-up: 0 at the floor, 1 at the peak, above 1 after the peak."""
    count = _scheduler_steps(num_steps)
    warmup = _warmup_steps(experiment)
    if experiment.warmup_type == "log":
        return np.log(count + 1) / np.log(warmup)
    return count / warmup


def _check(experiment: Experiment, total: int, num_steps: int) -> None:
    """Raises UserError on a flag that does not suit the schedule of `total` steps."""
    _check_warmup(experiment, total)
    schedule = experiment.schedule
    if experiment.schedule_steps and schedule not in WITH_END:
        raise UserError(
            f"--schedule_steps: --schedule={schedule} has no end; leave it out"
        )
    if total < num_steps:
        raise UserError(
            f"--schedule_steps: the schedule ends after {total} of the run's "
            f"{num_steps} steps; raise it or lower --epochs or --max_steps"
        )
    if experiment.final_learning_rate and schedule != "warmup_cosine_lr":
        raise UserError(
            f"--final_learning_rate: --schedule={schedule} has no use for it; leave it "
            "out"
        )


def _check_warmup(experiment: Experiment, num_steps: int) -> None:
    schedule = experiment.schedule
    warmup = experiment.warmup_steps
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

    # The peak of the cycle is at W - 1, and the rise divides by it.
    if schedule == "one_cycle" and warmup == 1:
        raise UserError(
            "--warmup_steps: --schedule=one_cycle needs at least 2 steps until the "
            "peak, or 0 for 30% of the run"
        )

    # DeepSpeed's may end before their peak: its default warm-up is 1000 steps.
    if schedule in FITTING and warmup >= max(num_steps, 1):
        longer = "--schedule_steps" if experiment.schedule_steps else "--epochs"
        raise UserError(
            f"--warmup_steps: {warmup} steps until the peak do not fit into a schedule "
            f"of {num_steps}; lower it or raise {longer}"
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

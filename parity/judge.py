"""Judges a recording: every step against its replay and the step before; two recordings: their batches."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jaxnn import precision
from jaxnn.experiment import schedules
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.trace import Reader, select
from parity.compare import Measurement, equal, measure
from parity.noise import DRAWS, MORE_DRAWS, kink_units, noise_units
from parity.replay import Inputs, Replay, Tensors

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FORWARD = {"loss": ("loss", FLOAT32, 1.0), "updated_batch_stats": ("batch_stats", FLOAT32, 1.0)}
"""Kind of a tensor that is not a gradient -> its quantity, storage format and scale."""
AFTER = {"params": "updated", "moments": "updated_moments"}
CARRIED = AFTER | {"batch_stats": "updated_batch_stats"}
"""What a step begins with -> what the one before ended with. A skipped step leaves what is in AFTER as it was."""


def judge_step(replay: Replay, number: int, step: Tensors, threshold: float) -> list[Measurement]:
    """Measures what one step computed against its replay."""
    inputs = replay.inputs(number, step)
    replayed = replay.gradients(inputs, replay.compute)
    overflow = not all(np.isfinite(array).all() for name, array in replayed.items() if name.startswith("grads/"))
    decision = equal(number, "skipped", "", step["skipped"], np.bool_(overflow and replay.may_skip))
    halves = [decision, *judge_gradients(replay, number, step, inputs, replayed, threshold)]
    return halves + (
        unchanged(number, step) if step["skipped"] else judge_update(replay, number, step, inputs, threshold))


def judge_gradients(replay: Replay, number: int, step: Tensors, inputs: Inputs, replayed: Tensors,
                    threshold: float) -> list[Measurement]:
    """Measures loss, gradients and running statistics; of a skipped step not the gradients."""

    def units(draws: int) -> Mapping[str, float]:
        rng = np.random.default_rng([number, draws])
        plain = noise_units(lambda moved, dtype: replay.gradients(inputs._replace(compute=moved), dtype),
                            inputs.compute, replay.compute, rng, draws)
        if draws == DRAWS:
            return plain
        kinks = kink_units(lambda seed: replay.nudged_gradients(inputs, seed), replay.gradients(inputs, FLOAT64))
        return {name: max(plain[name], kinks[name]) for name in plain}

    def compared(unit: Mapping[str, float], closely: bool) -> Iterator[Measurement]:
        for name in replayed:
            kind, _, tensor = name.partition("/")
            quantity, storage, scale = FORWARD.get(kind, ("grads", replay.compute, float(step["loss_scale"])))
            recorded = _recorded(step, name, number)
            both_overflow = not (np.isfinite(recorded).all() or np.isfinite(replayed[name]).all())
            if step["skipped"] and (quantity == "grads" or both_overflow):
                continue
            yield measure(number, quantity, tensor, recorded, replayed[name], unit[name], storage, scale, threshold,
                          closely)

    return _twice_if_needed(units, compared, threshold)


def judge_update(replay: Replay, number: int, step: Tensors, inputs: Inputs, threshold: float) -> list[Measurement]:
    """Measures the optimizer's half of a step, from the recorded gradients."""
    replayed = replay.update(inputs, FLOAT32)

    def units(draws: int) -> Mapping[str, float]:
        rng = np.random.default_rng([number, draws])
        return noise_units(lambda moved, dtype: replay.update(inputs._replace(master=moved), dtype),
                           inputs.master, FLOAT32, rng, draws)

    def compared(unit: Mapping[str, float], closely: bool) -> Iterator[Measurement]:
        for name in replayed:
            kind, _, tensor = name.partition("/")
            quantity = {"updated": "updated", "updated_moments": "moments"}[kind]
            yield measure(number, quantity, tensor, _recorded(step, name, number), replayed[name], unit[name], FLOAT32,
                          1.0, threshold, closely)

    return _twice_if_needed(units, compared, threshold)


def _twice_if_needed(units: Callable[[int], Mapping[str, float]],
                     compared: Callable[[Mapping[str, float], bool], Iterator[Measurement]],
                     threshold: float) -> list[Measurement]:
    """Measures with a few draws; what fails is measured again with many, so that no verdict rests on a lucky few."""
    measurements = list(compared(units(DRAWS), False))
    if all(m.z <= threshold for m in measurements):
        return measurements
    return [after if before.z > threshold else before
            for before, after in zip(measurements, compared(units(MORE_DRAWS), True))]


def _recorded(step: Tensors, name: str, number: int) -> np.ndarray:
    """A tensor that the replay computed; a recording that leaves it out cannot be judged."""
    if name not in step:
        raise UserError(f"cannot judge: step {number} of the recording lacks {name}; record with --record=full")
    return step[name]


def unchanged(number: int, step: Tensors) -> list[Measurement]:
    """A skipped step leaves parameters and moments as they were."""
    return [equal(number, "unchanged", f"{before}/{name}", array, step[f"{after}/{name}"])
            for before, after in AFTER.items() for name, array in select(step, before).items()]


def judge_rules(experiment: Experiment, trace: Reader, total_steps: int) -> Iterator[Measurement]:
    """What follows from the flags alone, learning rates, loss scales and counters; and that each step begins
    where the one before ended."""
    learning_rates = schedules.learning_rates(experiment, total_steps)
    scale, updates, previous = precision.initial_loss_scale(experiment), 0, {}
    for number in range(len(trace)):
        step = trace.read(number)
        yield equal(number, "optimizer_step", "", step["optimizer_step"], np.int32(updates))
        yield equal(number, "learning_rate", "", step["learning_rate"], learning_rates[updates])
        yield equal(number, "loss_scale", "", step["loss_scale"], np.asarray(scale.scale))
        for before, after in CARRIED.items() if previous else ():
            for name, array in select(step, before).items():
                yield equal(number, "params", f"{before}/{name}", array, previous[f"{after}/{name}"])
        if experiment.precision == "fp16":
            scale = precision.update_loss_scale(scale, np.bool_(step["skipped"]), experiment)
        updates, previous = updates + (not step["skipped"]), step


def judge_pair(left: Reader, right: Reader) -> Iterator[Measurement]:
    """What two recordings of one experiment share to the bit: initial parameters and every batch."""
    for number in range(min(len(left), len(right))):
        ours, theirs = left.read(number), right.read(number)
        yield equal(number, "batch", "ids", ours["batch/ids"], theirs["batch/ids"])
        for name in sorted({*select(ours, "params"), *select(theirs, "params")}) if number == 0 else ():
            absent = np.zeros(0)
            yield equal(0, "params", name, ours.get(f"params/{name}", absent), theirs.get(f"params/{name}", absent))

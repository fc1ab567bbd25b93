"""Judges a recording: each step against its flags, against its replay, and against the
step before."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags.config import Experiment
from parity import rules
from parity.inputs import Inputs
from parity.judging.measure import Measurement, equal, measure
from parity.judging.third_opinion import Vote, vote
from parity.noise import DRAWS, FEW_DRAWS, MORE_DRAWS, SOME_DRAWS, Kinks, Noise, Tensors
from parity.replay import FLOAT32, Replay
from parity.rules import CARRIED, Expectation, Timeline
from parity.semantics.switch import (
    GRADIENTS,
    RULES,
    UPDATE,
    Situation,
    Switch,
    apply,
    changed_experiment,
    patched,
)

FORWARD = {"loss": "loss", "updated_batch_stats": "batch_stats"}
"""Kind of a tensor of the forward pass that is stored in float32 -> its quantity."""
UPDATED = {"updated": "updated", "updated_moments": "moments"}
"""Kind of a tensor of the optimizer's half -> its quantity."""
KEPT = ("params", "moments")
"""What a skipped step leaves as it was."""

THOROUGH = (FEW_DRAWS, DRAWS, MORE_DRAWS)
ULPS_FIRST = (0, *THOROUGH)
"""Draws of noise to measure with, until everything passes; without draws the unit is
one ulp, the smallest there is."""

Switches = tuple[Switch, ...]


class Replays:
    """The replays of one experiment under any switches, each compiled once.

    Args:
      experiment: as its flags have it.
      data: its data set.
      world_size: ranks that recorded it.
    """

    def __init__(self, experiment: Experiment, data: Dataset, world_size: int = 1):
        self.experiment, self.data, self.world_size = experiment, data, world_size
        self._known: dict[tuple[str, ...], Replay] = {}

    def under(self, switches: Switches) -> Replay:
        """The replay under some switches."""
        names = tuple(switch.name for switch in switches)
        if names not in self._known:
            self._known[names] = Replay(
                self.experiment, self.data, switches, self.world_size
            )
        return self._known[names]


class Judge:
    """Judges one recording, step by step.

    Args:
      replays: of the experiment that was recorded.
      recording: a trace at --record=full.
      initial: the flat parameters that the run was given; None: not known.
      threshold: largest z that passes.
      rounds: numbers of draws to measure with, one after the other until everything
        passes.
    """

    def __init__(
        self,
        replays: Replays,
        recording: Reader,
        initial: Mapping[str, np.ndarray] | None,
        threshold: float,
        rounds: Sequence[int] = THOROUGH,
    ):
        self._replays, self._initial, self._threshold, self._rounds = (
            replays,
            initial,
            threshold,
            rounds,
        )
        self._read = functools.lru_cache(maxsize=4)(recording.read)
        self._is_skipped = functools.cache(
            lambda number: bool(self._read(number)["skipped"])
        )
        self._known: dict[tuple[str, ...], Premises] = {}

    def step(self, number: int) -> list[Measurement]:
        """Measures everything that a step computed."""
        return [
            m for part in (RULES, GRADIENTS, UPDATE) for m in self.part(part, number)
        ]

    def part(
        self,
        part: str,
        number: int,
        switches: Switches = (),
        close_below: float = np.inf,
    ) -> list[Measurement]:
        """Measures one part of a step.

        Args:
          part: RULES, GRADIENTS or UPDATE.
          number: of the step.
          switches: that the step is replayed under.
          close_below: what fails by more than this z is not measured again with more
            draws.
        """
        step, situation = self._read(number), self._situation(number, switches)
        if part == RULES:
            return [
                equal(number, row.quantity, row.tensor, row.recorded, row.expected)
                for row in self._expected(switches, situation)
            ]
        replay = self._replays.under(switches)
        inputs = apply("before", switches, replay.inputs(number, step), situation)
        rounds = Rounds(self._rounds, self._threshold, close_below)
        if part == UPDATE:
            return (
                unchanged(number, step)
                if step["skipped"]
                else judge_update(replay, number, step, inputs, rounds)
            )
        replayed = apply(
            "after", switches, replay.gradients(inputs, replay.compute), situation
        )
        return judge_gradients(replay, number, step, inputs, replayed, rounds)

    def enacted(self, number: int, switches: Switches) -> Tensors:
        """A recorded step as a run with the switches would have recorded it, from the
        same state."""
        step, situation = dict(self._read(number)), self._situation(number, switches)
        acting = {
            part: tuple(s for s in switches if part in s.parts)
            for part in (RULES, GRADIENTS, UPDATE)
        }
        replay = self._replays.under(switches)
        inputs = apply("before", switches, replay.inputs(number, step), situation)
        if acting[RULES]:
            step |= {
                row.name: row.expected
                for row in self._expected(acting[RULES], situation)
            }
        if acting[GRADIENTS]:
            step |= _float32(
                apply(
                    "after",
                    switches,
                    replay.gradients(inputs, replay.compute),
                    situation,
                )
            )
            step["grad_norm"] = trace.grad_norm(
                select(step, "grads").values(), bool(step["skipped"])
            )
        if acting[UPDATE] and not step["skipped"]:
            step |= _float32(replay.update(inputs, FLOAT32))
        return step

    def vote(self, failed: Measurement) -> Vote | None:
        """The oracle's opinion on a tensor that failed; see `vote.vote`."""
        replay, step = self._replays.under(()), self._read(failed.step)
        inputs = replay.inputs(failed.step, step)
        replayed = (
            replay.update(inputs, FLOAT32)
            if failed.quantity in UPDATED.values()
            else replay.gradients(inputs, replay.compute)
        )
        return vote(
            self._replays.experiment,
            self._replays.data.signature,
            inputs,
            step,
            replayed,
            failed,
        )

    def _expected(self, switches: Switches, situation: Situation) -> list[Expectation]:
        premises, number = self._premises(switches), situation.number
        with patched(switches):
            rows = rules.expectations(
                premises.experiment,
                len(self._replays.data.train_inputs),
                number,
                premises.timeline.at(number),
                situation.step,
                situation.previous,
                premises.learning_rates,
                self._initial,
            )
        return apply("expected", switches, rows, situation)

    def _situation(self, number: int, switches: Switches) -> Situation:
        premises = self._premises(switches)
        with patched(switches):
            progress = premises.timeline.at(number)
        return Situation(
            premises.experiment,
            number,
            self._read(number),
            self._read(number - 1) if number else {},
            self._read(0),
            progress.updates,
            premises.learning_rates,
            self._replays.world_size,
            progress.grows,
            self._initial,
        )

    def _premises(self, switches: Switches) -> "Premises":
        names = tuple(switch.name for switch in switches)
        if names not in self._known:
            experiment = changed_experiment(self._replays.experiment, switches)
            with patched(switches):
                self._known[names] = Premises(
                    experiment,
                    Timeline(experiment, self._is_skipped),
                    rules.learning_rates(
                        experiment, len(self._replays.data.train_inputs)
                    ),
                )
        return self._known[names]


class Premises(NamedTuple):
    """What the rules of every step rest on, under some switches.

    Attributes:
      experiment: with their changes.
      timeline: where the run stands before each step; to be asked while they are in
        place.
      learning_rates: the run's table, [updates] float32.
    """

    experiment: Experiment
    timeline: Timeline
    learning_rates: np.ndarray


class Rounds(NamedTuple):
    """How often to measure.

    Attributes:
      draws: of noise, one number after the other until everything passes; 0: the unit
        is one ulp.
      threshold: largest z that passes.
      close_below: what fails by more than this z is not measured with `MORE_DRAWS`.
    """

    draws: Sequence[int]
    threshold: float
    close_below: float

    def run(
        self,
        units: Callable[[int], Mapping[str, float]],
        compared: Callable[[Mapping[str, float], bool], Iterator[Measurement]],
    ) -> list[Measurement]:
        """Measures with as few draws of noise as settle the verdict.

        Over 5 draws the root mean square is at least sqrt(2/5) of that over the first
        2: what passes by that much with 2 passes with 5. What fails with 5 is measured
        again with many, so that no verdict rests on a lucky few.
        """
        measurements: list[Measurement] = []
        for draws in self.draws:
            worst = max((m.z for m in measurements), default=np.inf)
            if draws == MORE_DRAWS and (
                worst <= self.threshold or worst > self.close_below
            ):
                break
            again = list(compared(units(draws) if draws else {}, draws == MORE_DRAWS))
            kept = measurements if draws == MORE_DRAWS else again
            measurements = [
                new if old.z > self.threshold else old for old, new in zip(kept, again)
            ]
            share = (draws / DRAWS) ** 0.5 if 0 < draws < DRAWS else 1.0
            if all(m.z <= self.threshold * share for m in measurements):
                break
        return measurements


def judge_gradients(
    replay: Replay,
    number: int,
    step: Tensors,
    inputs: Inputs,
    replayed: Tensors,
    rounds: Rounds,
) -> list[Measurement]:
    """Measures activations, loss, gradients, running statistics, their norm and the
    decision to skip.

    Of a skipped step not the gradients, nor what overflows on both sides; activations
    where any are recorded.
    """
    has_activations = any(name.startswith("activations/") for name in step)
    judged = [
        name
        for name in replayed
        if has_activations or not name.startswith("activations/")
    ]

    noise = Noise(
        lambda moved: replay.gradients_rounding(inputs._replace(compute=moved)),
        inputs.compute,
        number,
    )

    def units(draws: int) -> Mapping[str, float]:
        if draws < MORE_DRAWS:
            return noise.units(draws)
        kinks = Kinks(replay.nudging(inputs))
        # What passes by so much with some draws passes with all of them; see
        # `Rounds.run`.
        for some in (SOME_DRAWS, MORE_DRAWS):
            near, share = (
                kinks.larger(noise.units(DRAWS), some),
                (some / MORE_DRAWS) ** 0.5,
            )
            if all(m.z <= rounds.threshold * share for m in compared(near, True)):
                return near
        return kinks.larger(noise.units(MORE_DRAWS), MORE_DRAWS)

    def compared(unit: Mapping[str, float], closely: bool) -> Iterator[Measurement]:
        for name in judged:
            kind, _, tensor = name.partition("/")
            quantity, storage = (
                (FORWARD[kind], FLOAT32) if kind in FORWARD else (kind, replay.compute)
            )
            scale = float(step["loss_scale"]) if quantity == "grads" else 1.0
            recorded = _recorded(step, name, number, replayed[name].shape)
            both_overflow = not (
                np.isfinite(recorded).all() or np.isfinite(replayed[name]).all()
            )
            if step["skipped"] and (quantity == "grads" or both_overflow):
                continue
            yield measure(
                number,
                quantity,
                tensor,
                recorded,
                replayed[name],
                unit.get(name, 0.0),
                storage,
                scale,
                rounds.threshold,
                closely,
            )

    overflow = not all(
        np.isfinite(replayed[name]).all()
        for name in replayed
        if name.startswith("grads/")
    )
    decision = equal(
        number, "skipped", "", step["skipped"], np.bool_(overflow and replay.may_skip)
    )
    norm = [] if step["skipped"] else [judge_norm(number, step, rounds.threshold)]
    return [decision, *rounds.run(units, compared), *norm]


def judge_update(
    replay: Replay, number: int, step: Tensors, inputs: Inputs, rounds: Rounds
) -> list[Measurement]:
    """Measures the optimizer's half of a step, from the recorded gradients."""
    replayed = replay.update(inputs, FLOAT32)
    noise = Noise(
        lambda moved: replay.update_rounding(inputs._replace(master=moved)),
        inputs.master,
        number,
    )

    def compared(unit: Mapping[str, float], closely: bool) -> Iterator[Measurement]:
        for name in replayed:
            kind, _, tensor = name.partition("/")
            recorded = _recorded(step, name, number, replayed[name].shape)
            yield measure(
                number,
                UPDATED[kind],
                tensor,
                recorded,
                replayed[name],
                unit.get(name, 0.0),
                FLOAT32,
                1.0,
                rounds.threshold,
                closely,
            )

    return rounds.run(noise.units, compared)


def judge_norm(number: int, step: Tensors, threshold: float) -> Measurement:
    """Measures the recorded norm against that of the recorded gradients, in ulps of
    float32."""
    norm = trace.grad_norm(select(step, "grads").values(), skipped=False)
    return measure(
        number,
        "grad_norm",
        "",
        step["grad_norm"],
        np.float64(norm),
        0.0,
        FLOAT32,
        threshold=threshold,
    )


def unchanged(number: int, step: Tensors) -> list[Measurement]:
    """A skipped step leaves parameters and moments as they were."""
    return [
        equal(
            number,
            "unchanged",
            f"{before}/{name}",
            array,
            step[f"{CARRIED[before]}/{name}"],
        )
        for before in KEPT
        for name, array in select(step, before).items()
    ]


def order(recording: Reader) -> list[str]:
    """The names of layers and gradients in the order in which a step of this recording
    makes them."""
    names = recording.meta["order"]
    return [*names["activations"], *reversed(names["params"])]


def _float32(tensors: Tensors) -> Tensors:
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def _recorded(
    step: Tensors, name: str, number: int, shape: tuple[int, ...]
) -> np.ndarray:
    """A tensor that the replay computed; a recording that leaves it out or shapes it
    otherwise cannot be judged."""
    if name not in step:
        raise UserError(
            f"cannot judge: step {number} of the recording lacks {name}; record with "
            "--record=full"
        )
    if step[name].shape != shape:
        raise UserError(
            f"cannot judge: step {number}: {name} is {step[name].shape} in the "
            f"recording, {shape} in its replay; names and layouts of a trace are Flax's"
        )
    return step[name]

"""Judges a recording step by step: against its flags, its replay, the step before."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxnn.experiment.catalogue import is_own
from jaxnn.experiment.files import trace
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags.config import Experiment
from parity import rules
from parity.inputs import Inputs
from parity.judging.batch import judge_batch
from parity.judging.measure import Measurement, equal
from parity.judging.replays import Replays, Switches
from parity.judging.rounds import IN_ULPS, THOROUGH, WORTH_A_CLOSE_LOOK, Rounds
from parity.judging.tensors import (
    judge_forward,
    judge_gradients,
    judge_skipped,
    judge_update,
)
from parity.judging.third_opinion import Vote, vote
from parity.noise import FLOAT32, Tensors, norm
from parity.quantities import GRADIENTS, PARTS, QUANTITIES, RULES, UPDATE, Key, key_of
from parity.rules import Expectation, Timeline
from parity.semantics.switch import (
    StepContext,
    apply,
    changed_experiment,
    patched,
)


class RunContext(NamedTuple):
    """What the rules of every step rest on, under some switches.

    Attributes:
      experiment: experiment, with the switches' changes.
      timeline: position of the run before each step; to be asked under the switches'
        patches.
      learning_rates: [updates] float32 table of the whole run.
    """

    experiment: Experiment
    timeline: Timeline
    learning_rates: np.ndarray


class Recording(Protocol):
    """What a `Judge` needs of a trace."""

    def read(self, number: int, /) -> Tensors:
        """Returns the tensors of one step."""
        ...


class Judge:
    """Judges one recording.

    Args:
      replays: replays of the experiment that was recorded.
      recording: trace at --record=full.
      initial: flat parameters that the run was given; None if not known.
      threshold: largest z that passes.
      rounds: numbers of draws to measure with; see `rounds.Rounds`.
    """

    def __init__(
        self,
        replays: Replays,
        recording: Recording,
        initial: Mapping[str, np.ndarray] | None,
        threshold: float,
        rounds: Sequence[int] = THOROUGH,
    ):
        self._replays = replays
        self._initial = initial
        self._threshold = threshold
        self._rounds = rounds
        # A step is read for itself, for the step after it and under every switch.
        self._read = functools.lru_cache(maxsize=4)(recording.read)
        self._batch = functools.cache(self._judge_batch)
        self._is_skipped = functools.cache(self._read_skipped)
        self._contexts: dict[tuple[str, ...], RunContext] = {}
        self._judged: dict[tuple[str, int], list[Measurement]] = {}

    def step(self, number: int, close_below: float = math.inf) -> list[Measurement]:
        """Returns the measurements of everything that a step computed.

        Args:
          number: step index, from 0.
          close_below: as of `part`.
        """
        for part in PARTS:
            self._judged[part, number] = self.part(part, number, (), close_below)
        return [m for part in PARTS for m in self._judged[part, number]]

    def judged(self, part: str, number: int) -> list[Measurement]:
        """Returns the measurements of one part of a step, as `step` has made them.

        Of a step that was not judged they are made now, as of one behind a divergence.

        Args:
          part: one of `quantities.PARTS`.
          number: step index, from 0.
        """
        key = part, number
        if key not in self._judged:
            self._judged[key] = self.part(part, number, (), WORTH_A_CLOSE_LOOK)
        return self._judged[key]

    def part(
        self,
        part: str,
        number: int,
        switches: Switches = (),
        close_below: float = math.inf,
    ) -> list[Measurement]:
        """Returns the measurements of one part of a step.

        Args:
          part: one of `quantities.PARTS`.
          number: step index, from 0.
          switches: known differences to replay the step under.
          close_below: what fails by more than this z is not measured again with many
            draws.
        """
        step = self._read(number)
        context = self._step_context(number, switches)
        if part == RULES:
            rows = [
                equal(number, row.quantity, row.tensor, row.recorded, row.expected)
                for row in self._expected(switches, context)
            ]
            return [*rows, *self._batch(number)]
        replay = self._replays.under(switches)
        inputs = self._inputs(switches, context)
        rounds = Rounds(self._rounds, self._threshold, close_below)
        if part == UPDATE:
            if step["skipped"]:
                return judge_skipped(number, step)
            return judge_update(replay, number, step, inputs, rounds)
        replayed = replay.gradients(inputs, replay.compute)
        replayed = self._comparable(replayed, switches, context)
        return judge_gradients(replay, number, step, inputs, replayed, rounds)

    def glance(
        self, number: int, switches: Switches, forward_only: bool = False
    ) -> list[Measurement]:
        """Returns the measurements of forward and backward pass in ulps, sooner.

        Args:
          number: step index, from 0.
          switches: known differences to replay the step under.
          forward_only: leave the backward pass out, which is sooner yet.
        """
        return self._in_ulps(
            number,
            switches,
            forward_only,
            *self._glanced(number, switches, forward_only),
        )

    def glance_without(
        self, number: int, forward_only: bool
    ) -> tuple[list[Measurement], dict[Key, float]]:
        """Returns `glance` without switches, and how many times larger than its replay
        each recorded tensor is; arguments as of `glance`."""
        step = self._read(number)
        inputs, replayed = self._glanced(number, (), forward_only)
        sizes = {name: norm(array) for name, array in replayed.items() if name in step}
        times_larger = {
            key_of(name): norm(step[name]) / size if size else math.inf
            for name, size in sizes.items()
        }
        return self._in_ulps(number, (), forward_only, inputs, replayed), times_larger

    def _in_ulps(
        self,
        number: int,
        switches: Switches,
        forward_only: bool,
        inputs: Inputs,
        replayed: Tensors,
    ) -> list[Measurement]:
        step = self._read(number)
        replay = self._replays.under(switches)
        if forward_only:
            return judge_forward(replay, number, step, replayed)
        rounds = Rounds(IN_ULPS, self._threshold)
        return judge_gradients(replay, number, step, inputs, replayed, rounds)

    def _glanced(
        self, number: int, switches: Switches, forward_only: bool
    ) -> tuple[Inputs, Tensors]:
        """Returns what forward and backward pass start from and leave."""
        context = self._step_context(number, switches)
        replay = self._replays.under(switches)
        inputs = self._inputs(switches, context)
        replayed = replay.glance(inputs, forward_only)
        return inputs, self._comparable(replayed, switches, context)

    def _inputs(self, switches: Switches, context: StepContext) -> Inputs:
        """Returns what a step starts from under switches."""
        replay = self._replays.under(switches)
        inputs = replay.inputs(context.number, self._read(context.number))
        return apply("before", switches, inputs, context)

    def _comparable(
        self, replayed: Tensors, switches: Switches, context: StepContext
    ) -> Tensors:
        """Returns what forward and backward pass left, as the recording has it."""
        replayed = apply("after", switches, replayed, context)
        if is_own(self._replays.experiment.model):
            return _recorded_layers(replayed, context.step)
        return replayed

    def enacted(self, number: int, switches: Switches) -> Tensors:
        """Returns a step as a run with the switches would have recorded it.

        Starts from the same recorded state. The switches act on their parts alone; the
        rest of the step is as it was recorded.
        """
        step = dict(self._read(number))
        context = self._step_context(number, switches)
        acting = {
            part: tuple(switch for switch in switches if part in switch.parts)
            for part in PARTS
        }
        replay = self._replays.under(switches)
        inputs = self._inputs(switches, context)
        if acting[RULES]:
            rows = self._expected(acting[RULES], context)
            step |= {row.name: row.expected for row in rows}
        if acting[GRADIENTS]:
            replayed = replay.gradients(inputs, replay.compute)
            step |= _float32(apply("after", switches, replayed, context))
            gradients = select(step, "grads").values()
            norm = trace.grad_norm(gradients, bool(step["skipped"]))
            step["grad_norm"] = np.asarray(norm)
        if acting[UPDATE] and not step["skipped"]:
            step |= _float32(replay.update(inputs, FLOAT32))
        return step

    def vote(self, failed: Measurement) -> Vote | None:
        """Returns the oracle's opinion on a tensor that failed; see `third_opinion`."""
        quantity = QUANTITIES[failed.quantity]
        if not quantity.kind:
            return None
        replay = self._replays.under(())
        step = self._read(failed.step)
        inputs = replay.inputs(failed.step, step)
        if quantity.part == UPDATE:
            replayed = replay.update(inputs, FLOAT32)
        else:
            replayed = replay.gradients(inputs, replay.compute)
        signature = self._replays.data.signature
        return vote(self._replays.experiment, signature, inputs, step, replayed, failed)

    def _expected(self, switches: Switches, context: StepContext) -> list[Expectation]:
        run = self._run_context(switches)
        number = context.number
        with patched(switches):
            rows = rules.expectations(
                run.experiment,
                len(self._replays.data.train_inputs),
                number,
                run.timeline.at(number),
                context.step,
                context.previous,
                run.learning_rates,
                self._initial,
            )
        return apply("expected", switches, rows, context)

    def _step_context(self, number: int, switches: Switches) -> StepContext:
        run = self._run_context(switches)
        with patched(switches):
            position = run.timeline.at(number)
        return StepContext(
            experiment=run.experiment,
            number=number,
            step=self._read(number),
            previous=self._read(number - 1) if number else {},
            first=self._read(0),
            updates=position.updates,
            learning_rates=run.learning_rates,
            world_size=self._replays.world_size,
            grows=position.grows,
            initial=self._initial,
        )

    def _run_context(self, switches: Switches) -> RunContext:
        names = tuple(switch.name for switch in switches)
        if names not in self._contexts:
            self._contexts[names] = self._make_run_context(switches)
        return self._contexts[names]

    def _make_run_context(self, switches: Switches) -> RunContext:
        experiment = changed_experiment(self._replays.experiment, switches)
        with patched(switches):
            timeline = Timeline(experiment, self._is_skipped)
            rates = rules.learning_rates(
                experiment, len(self._replays.data.train_inputs)
            )
        return RunContext(experiment, timeline, rates)

    def _judge_batch(self, number: int) -> list[Measurement]:
        return judge_batch(number, self._read(number), self._replays.data)

    def _read_skipped(self, number: int) -> bool:
        return bool(self._read(number)["skipped"])


def order(recording: Reader) -> list[str]:
    """Returns layers and gradients in the order in which a step computes them."""
    names = recording.meta["order"]
    return [*names["activations"], *reversed(names["params"])]


def _recorded_layers(replayed: Tensors, step: Mapping[str, np.ndarray]) -> Tensors:
    """Leaves out layers that the recording lacks.

    In a network of one's own not every layer of one library has a twin in the other.
    """
    return {
        name: array
        for name, array in replayed.items()
        if name in step or not name.startswith("activations/")
    }


def _float32(tensors: Tensors) -> Tensors:
    return {name: array.astype(np.float32) for name, array in tensors.items()}

"""Trains all members: rung by rung, program by program, chunk by chunk."""

import dataclasses
import operator
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxnn.devices import Devices
from jaxnn.sweep import chunks, halving, networks, records, store, training
from jaxnn.sweep.halving import Rung
from jaxnn.sweep.members import Member
from jaxnn.sweep.programs import Program
from jaxnn.sweep.progress import SweepProgress
from jaxnn.sweep.records import Record
from jaxnn.sweep.store import Part, Store
from jaxnn.train_step import TrainState

SAVE_SECONDS = 20.0
"""Training time after which unfinished members are saved."""


class Sweep(NamedTuple):
    """What is to be done.

    Attributes:
      members: all of them.
      programs: that train them.
      by: what ranks them: the loss or a metric.
      rungs: of successive halving; one without it.
      devices: the members are divided among these.
      store: keeps what is done.
      progress: is told of it.
      kept: folder that gets the trained networks, or None.
    """

    members: list[Member]
    programs: list[Program]
    by: str
    rungs: list[Rung]
    devices: Devices
    store: Store
    progress: SweepProgress
    kept: pathlib.Path | None = None


class Chunk(NamedTuple):
    """Members that train together.

    Attributes:
      name: of what the store keeps of them.
      members: who.
      like: state of one of them.
      trains_on: True if a further rung may train them on.
    """

    name: str
    members: list[Member]
    like: Any
    trains_on: bool


@dataclasses.dataclass
class Reached:
    """What members have reached; records and states by member's number.

    Attributes:
      records: of all members.
      states: of those that a further rung may train on, on the host.
      train_seconds: time that training took in this process, with evaluation.
      compile_seconds: time that compiling it took.
      steps: training steps of all members together in this process.
      samples: training samples, likewise.
    """

    records: dict[int, Record]
    states: dict[int, Any] = dataclasses.field(default_factory=dict)
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    steps: int = 0
    samples: int = 0


def total_epochs(
    members: Sequence[Member], programs: Sequence[Program], rungs: Sequence[Rung]
) -> int:
    """Returns how many epochs all members together train, if none diverges."""
    settings = len({member.setting for member in members})
    epochs = {m.number: len(p.plan) for p in programs for m in p.members}
    total, left, before = 0.0, 1.0, 0
    for rung in rungs:
        for number in epochs:
            last = min(rung.end, epochs[number])
            total += left * (last - min(before, epochs[number]))
        left, before = rung.keep / settings, rung.end
    return round(total)


def run(sweep: Sweep) -> Reached:
    """Trains all members."""
    reached = Reached({m.number: Record(by=sweep.by) for m in sweep.members})
    alive, before = list(sweep.members), 0
    for number, rung in enumerate(sweep.rungs):
        names = {member.number for member in alive}
        for place, program in enumerate(sweep.programs):
            chosen = [m for m in program.members if m.number in names]
            span = (before, min(rung.end, len(program.plan)))
            if chosen and span[0] < span[1]:
                _train(sweep, f"{number}_{place}", program, chosen, span, reached)
        if rung.keep:
            kept = halving.survivors(alive, reached.records, rung.keep)
            _drop(alive, kept, reached)
            alive = kept
        before = rung.end
    return reached


def _drop(alive: list[Member], kept: list[Member], reached: Reached) -> None:
    """Notes which members go no further."""
    for number in {m.number for m in alive} - {m.number for m in kept}:
        reached.states.pop(number, None)
        if reached.records[number].status == records.TRAINING:
            reached.records[number].status = records.DROPPED


def _train(
    sweep: Sweep,
    name: str,
    program: Program,
    chosen: list[Member],
    span: tuple[int, int],
    reached: Reached,
) -> None:
    """Trains members of one program from epoch to epoch, or finds it done."""
    like = training.first_states(program, chosen[:1])[0]
    trainer = training.Trainer(program, sweep.devices)
    trains_on = span[1] < len(program.plan)
    cuts = chunks.cut(program, chosen, like, len(sweep.devices))
    for number, members in enumerate(cuts):
        part = _found(sweep, f"{name}_{number}", program, members, span, reached)
        if part.epochs < span[1]:
            start, first = time.perf_counter(), part.epochs
            chunk = Chunk(f"{name}_{number}", members, like, trains_on)
            part = _train_chunk(sweep, trainer, chunk, part, span[1])
            reached.train_seconds += time.perf_counter() - start
            _count(reached, program, members, (first, part.epochs))
        if trains_on and part.states is not None:
            states = store.unstack(part.states, like, len(members))
            reached.states.update(zip([m.number for m in members], states))
    reached.train_seconds -= trainer.compile_seconds
    reached.compile_seconds += trainer.compile_seconds


def _found(
    sweep: Sweep,
    name: str,
    program: Program,
    members: list[Member],
    span: tuple[int, int],
    reached: Reached,
) -> Part:
    """Returns what a killed sweep has kept of a chunk, or its start."""
    part = sweep.store.load(name)
    if part is None:
        part = _start(program, members, span[0], reached)
    reached.records.update(part.records)
    sweep.progress.advance(len(members) * (part.epochs - span[0]))
    return part


def _count(
    reached: Reached, program: Program, members: list[Member], span: tuple[int, int]
) -> None:
    """Counts steps and samples of members that have gone from epoch to epoch."""
    for member in members:
        count = len(program.split(member).data.train_inputs)
        for steps in program.plan[slice(*span)]:
            reached.steps += steps
            reached.samples += min(steps * program.base.batch_size, count)


def _start(
    program: Program, members: list[Member], first: int, reached: Reached
) -> Part:
    """Returns members as the last rung left them, or before their first step."""
    if first:
        states = [reached.states[member.number] for member in members]
    else:
        states = training.first_states(program, members)
    found = {member.number: reached.records[member.number] for member in members}
    return Part(first, found, store.stack(states))


def _train_chunk(
    sweep: Sweep, trainer: training.Trainer, chunk: Chunk, part: Part, last: int
) -> Part:
    """Trains a chunk on, saving it from time to time and at the end."""
    saved = time.monotonic()
    # What is to train on was saved with its states.
    assert part.states is not None
    states = jax.tree.unflatten(jax.tree.structure(chunk.like), part.states)
    members, found = chunk.members, part.records
    for done in trainer.train(members, states, found, part.epochs, last):
        sweep.progress.advance(done.done, members, found)
        over = all(record.is_over for record in found.values())
        epochs = last if over else done.epochs
        if sweep.kept and epochs == last and not chunk.trains_on:
            _keep(sweep.kept, members, found, done.states())
        if epochs == last or time.monotonic() - saved > SAVE_SECONDS:
            is_needed = chunk.trains_on or epochs < last
            leaves = jax.tree.leaves(done.states()) if is_needed else None
            part = Part(epochs, found, leaves)
            sweep.store.save(chunk.name, part)
            saved = time.monotonic()
        if over:
            sweep.progress.advance((last - done.epochs) * len(members))
            break
    return part


def _keep(
    workdir: pathlib.Path,
    members: Sequence[Member],
    found: Mapping[int, Record],
    states: TrainState,
) -> None:
    """Writes the networks of members that have trained all their epochs."""
    for place, member in enumerate(members):
        if found[member.number].status == records.DONE:
            one = jax.tree.map(operator.itemgetter(place), states)
            networks.write(workdir, member.number, one)

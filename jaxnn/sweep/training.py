"""Trains the members of a chunk together, some epochs at a time."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxnn import diagnosis, models, parallel, train, train_step
from jaxnn.devices import Devices
from jaxnn.diagnosis import Diagnosed, Step
from jaxnn.experiment.data import batches
from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import initial_loss_scale
from jaxnn.metrics import METRICS
from jaxnn.optimizers import OPTIMIZERS
from jaxnn.sweep import flag_roles
from jaxnn.sweep.members import Member
from jaxnn.sweep.programs import Program, place_ids
from jaxnn.sweep.records import Reader, Record
from jaxnn.train_step import Batch, StepResult, TrainState

CALL_SECONDS = 0.5
"""Time that a call takes: progress is shown between calls."""
CACHE_BYTES = 3 * 2**20
"""Of the states that go through a step together on a CPU."""
ORDER_BYTES = 2**22
"""Largest bytes of the sample ids of a call."""


class Reported(NamedTuple):
    """What a step reports of a member.

    Attributes:
      loss: () float.
      skipped: () bool.
      bad: () bool, True if a run of its own would end here: something is not finite,
        or overflows at the smallest loss scale.
      diagnosis: [1 + layers, MEASURED] float32; None without `--diagnose`.
    """

    loss: jax.Array
    skipped: jax.Array
    bad: jax.Array
    diagnosis: jax.Array | None = None


class Progress(NamedTuple):
    """Where a chunk stands after a call.

    Attributes:
      epochs: epochs that its members have completed.
      done: member-epochs of this call.
      states: returns [members, ...] states on the host, while no further call has
        begun.
    """

    epochs: int
    done: int
    states: Callable[[], TrainState]


def networks_together(num_bytes: int) -> int:
    """Returns how many networks of a device go through a step together at most.

    Operations on small arrays cost more to begin than to do, so that networks are
    batched. On a CPU no more than its cache holds: the next block follows when the
    epochs of this one are done. Measured on a CPU, us of processor time a step and
    network: breast_cancer.flags, states of 50 kB, 77 alone, 60 in blocks of 16, 52 all
    64; digits.flags, 640 kB, 613 alone, 530 in blocks of 4, 696 all 16.

    Args:
      num_bytes: size of the state of one network.
    """
    if jax.default_backend() != "cpu":
        return 2**31
    return max(CACHE_BYTES // num_bytes, 1)


def first_states(program: Program, members: Sequence[Member]) -> list[TrainState]:
    """Returns each member's state before the first step, as `jaxnn.train` makes it."""
    make = functools.cache(functools.partial(_starter, program))
    states = []
    for member in members:
        experiment = member.experiment
        start = make(experiment.initializer, experiment.adagrad_initial)
        state = jax.device_get(start(experiment.seed))
        scale = jax.device_get(initial_loss_scale(experiment))
        states.append(state._replace(loss_scale=scale))
    return states


def _starter(program: Program, initializer: str, adagrad_initial: float) -> Callable:
    experiment = program.base.replace(
        initializer=initializer, adagrad_initial=adagrad_initial
    )
    signature = program.splits[0].data.signature
    model = models.build(experiment, signature)
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)

    def make(seed: jax.Array) -> TrainState:
        variables = train_step.initial_variables(model, seed, signature)
        return train_step.initial_state(variables, experiment, optimizer)

    return jax.jit(make)


class Trainer:
    """Trains members of one program; compiles once for each number of them.

    Args:
      program: what they share.
      devices: the members are divided among these.
    """

    def __init__(self, program: Program, devices: Devices):
        self._program = program
        self._devices = devices
        self._layers = diagnosed_layers(program)
        self._compiled: dict[_Layout, parallel.Compiled] = {}
        self._samples = parallel.put(program.samples(), devices)
        evaluated = [
            place_ids(split.evaluated, offset)
            for split, offset in zip(program.splits, program.offsets()[1])
        ]
        self._evaluated = parallel.put(np.stack(evaluated), devices)

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        return sum(compiled.seconds for compiled in self._compiled.values())

    def train(
        self,
        members: Sequence[Member],
        states: Any,
        records: dict[int, Record],
        first: int,
        last: int,
    ) -> Iterator[Progress]:
        """Trains members for the epochs from `first` up to `last`, not included.

        Args:
          members: who.
          states: [members, ...] states after `first` epochs, on the host.
          records: member's number -> its record; extended.
          first: epochs done.
          last: epochs to have done in the end.
        """
        chunk = self._begin(members, states, records)
        while first < last:
            count = chunk.train(first, last)
            first += count
            yield Progress(first, count * len(members), chunk.states)

    def _begin(
        self, members: Sequence[Member], states: Any, records: dict[int, Record]
    ) -> "_Chunk":
        """Puts members on the devices."""
        layout = self._layout(len(members), states)
        put = functools.partial(
            parallel.put_members, devices=self._devices, rows=layout.rows
        )
        return _Chunk(
            readers=[self._reader(m, records[m.number]) for m in members],
            orders=_Orders(self._program, members, len(self._layers)),
            run=self._run_of(layout),
            state=put(states),
            own=put(self._own(members)),
            shared=(self._evaluated, self._samples),
            devices=self._devices,
        )

    def _reader(self, member: Member, record: Record) -> Reader:
        split = self._program.split(member)
        metric = METRICS[split.data.task][0]
        return Reader(member, split, metric, record, self._layers)

    def _layout(self, count: int, states: Any) -> "_Layout":
        leaves = jax.tree.leaves(states)
        most = networks_together(sum(leaf.nbytes for leaf in leaves) // count)
        rows = -(-count // len(self._devices))
        blocks = -(-rows // most)
        # Equal blocks: another size would be another program.
        together = -(-rows // blocks)
        return _Layout(blocks * together, together)

    def _run_of(self, layout: "_Layout") -> parallel.Compiled:
        if layout not in self._compiled:
            members = parallel.make_members(
                *_steps(self._program, self._layers), self._devices, layout.together
            )
            self._compiled[layout] = parallel.Compiled(members)
        return self._compiled[layout]

    def _own(self, members: Sequence[Member]) -> parallel.Own:
        program = self._program
        names = program.varying
        settings = [flag_roles.as_arrays(m.experiment, names) for m in members]
        rates = [program.learning_rates[member.number] for member in members]
        # A schedule that --max_steps cuts may be longer than another; nobody looks
        # behind the shortest's end.
        longest = max(map(len, rates))
        rates = [np.pad(table, (0, longest - len(table)), "edge") for table in rates]
        return parallel.Own(
            settings={name: np.stack([s[name] for s in settings]) for name in names},
            learning_rates=np.stack(rates),
            order=_Orders(program, members).index,
            split=_index([program.split_of[m.number] for m in members], program.splits),
        )


class _Chunk:
    """Members under way, on the devices.

    Args:
      readers: [members] keep their records.
      orders: in which they go through their samples.
      run: trains several epochs of all.
      state: [devices, rows, ...] states.
      own: what each has of its own, likewise.
      shared: evaluated ids, and training and evaluated samples.
      devices: where they are.
    """

    def __init__(
        self,
        readers: list[Reader],
        orders: "_Orders",
        run: parallel.Compiled,
        state: Any,
        own: parallel.Own,
        shared: tuple[Any, Any],
        devices: Devices,
    ):
        self._readers = readers
        self._orders = orders
        self._run = run
        self._state = state
        self._own = own
        self._evaluated, self._samples = shared
        self._devices = devices
        # Until a first call has been timed.
        self._pace = 1

    def train(self, first: int, last: int) -> int:
        """Trains some of the epochs from `first` up to `last`; returns how many."""
        count, width = self._orders.together(first, last, self._pace)
        ids = parallel.put(self._orders.read(first, count, width), self._devices)
        start = time.perf_counter() - self._run.seconds
        self._state, *reported, _ = self._run(
            self._state,
            ids,
            np.int32(count),
            self._evaluated,
            self._own,
            *self._samples,
        )
        reported = parallel.read_members(reported, len(self._readers))
        seconds = time.perf_counter() - self._run.seconds - start
        self._pace = max(int(CALL_SECONDS * count / seconds), 1)
        self._read(count, *reported)
        return count

    def states(self) -> TrainState:
        """Returns [members, ...] states on the host."""
        return parallel.read_members(self._state, len(self._readers))

    def _read(self, count: int, reported: Reported, sums: np.ndarray) -> None:
        *always, diagnosis = reported
        arrays = [*always, sums] + ([] if diagnosis is None else [diagnosis])
        for reader, *of_member in zip(self._readers, *arrays):
            for epoch in range(count):
                reader.read(*(array[epoch] for array in of_member))


class _Layout(NamedTuple):
    """How the members of a chunk lie on each device.

    Attributes:
      rows: members, some of them repeated to fill it up.
      together: of them, those that go through a step together.
    """

    rows: int
    together: int


class _Orders:
    """The different orders in which members go through their samples.

    Args:
      program: theirs.
      members: who.
      layers: how many are diagnosed.
    """

    def __init__(self, program: Program, members: Sequence[Member], layers: int = 0):
        self._program = program
        # float32 of the members' diagnoses, which a call reports of every step.
        self._diagnosed = len(members) * (1 + layers) * len(MEASURED) if layers else 0
        keys = [(m.experiment.seed, program.split_of[m.number]) for m in members]
        self._keys = list(dict.fromkeys(keys))
        self.index = _index([self._keys.index(key) for key in keys], self._keys)
        self._offsets = program.offsets()[0]

    def together(self, first: int, last: int, pace: int) -> tuple[int, int]:
        """Returns how many epochs to run in a call, and how many it has room for.

        Only epochs of as many steps run in one call; its room does not depend on where
        training stands, or another program would be compiled.

        Args:
          first: epochs done.
          last: epochs to have done in the end.
          pace: epochs that take as long as a call should.
        """
        plan = self._program.plan
        steps = plan[first]
        numbers = self._program.base.batch_size * len(self._keys) + self._diagnosed
        fitting = max(ORDER_BYTES // (4 * steps * numbers), 1)
        width = min(fitting, plan.count(steps))
        return min(width, pace, plan[first:last].count(steps)), width

    def read(self, first: int, count: int, width: int) -> np.ndarray:
        """Returns [orders, width, steps, batch] ids of `count` epochs from `first`."""
        steps = self._program.plan[first]
        size = self._program.base.batch_size
        ids = np.zeros((len(self._keys), width, steps, size), np.int32)
        for place, (seed, split) in enumerate(self._keys):
            samples = len(self._program.splits[split].data.train_inputs)
            for epoch in range(count):
                order = batches.epoch_order(samples, seed, first + epoch)
                cut = batches.global_batches(order, size)[:steps]
                ids[place, epoch] = place_ids(cut, self._offsets[split])
        return ids


def _index(places: list[int], different: Sequence[Any]) -> np.ndarray | None:
    return np.asarray(places, np.int32) if len(different) > 1 else None


def diagnosed_layers(program: Program) -> list[str]:
    """Returns the layers that `--diagnose` looks at, in the networks' order."""
    signature = program.splits[0].data.signature
    model = models.build(program.base, signature)
    return train.diagnosed_layers(program.base, model, signature)


def _steps(program: Program, layers: Sequence[str]) -> tuple[Step, Callable]:
    """Returns train_step and eval_step of any member, by its settings.

    Args:
      program: theirs.
      layers: to diagnose, if any.
    """
    signature = program.splits[0].data.signature
    _, metric = METRICS[program.splits[0].data.task]

    def built(settings: dict[str, jax.Array]):
        experiment = flag_roles.with_settings(program.base, settings)
        model = models.build(experiment, signature)
        return experiment, model

    def one_step(settings, state: TrainState, batch: Batch, learning_rates):
        experiment, model = built(settings)
        step = _step_of(experiment, model)
        return _reported(*step(state, batch, learning_rates))

    def diagnosed_step(settings, state: TrainState, batch: Batch, learning_rates):
        run = diagnosed(settings)
        return _reported(*run.measured(state, batch, learning_rates))

    def diagnosed(settings) -> Diagnosed:
        experiment, model = built(settings)
        step = _step_of(experiment, model)
        return diagnosis.diagnosed(step, experiment, model, layers, program.plan)

    def one_evaluation(settings, params, batch_stats, batch: Batch):
        experiment, model = built(settings)
        sums, _ = train_step.eval_step(
            experiment, model, metric, params, batch_stats, batch
        )
        return sums, ()

    if not layers:
        return one_step, one_evaluation
    due = diagnosis.due(program.plan)
    return Diagnosed(one_step, diagnosed_step, due), one_evaluation


def _step_of(experiment: Experiment, model: nn.Module) -> Callable:
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    return functools.partial(train_step.train_step, experiment, model, optimizer)


def _reported(
    state: TrainState, result: StepResult, grads: Any
) -> tuple[TrainState, Reported, Any]:
    bad = (~result.finite.all() & ~result.skipped) | result.exhausted
    reported = Reported(result.loss, result.skipped, bad, result.diagnosis)
    return state, reported, grads

"""The only file that calls pmap: epochs, chunks of steps, recorded single steps, or
many networks at once.

Arrays that differ between devices carry a leading [devices] axis. So does the state,
whose copies are equal.
"""

import contextlib
import functools
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from jaxnn import diagnosis
from jaxnn.devices import Devices
from jaxnn.diagnosis import Diagnosed, Step
from jaxnn.experiment.data import batches
from jaxnn.experiment.data.alignment import aligned
from jaxnn.experiment.data.samples import Samples
from jaxnn.gathering import Resident, gather

AXIS = "devices"
"""Name of the mapped axis."""
OWN = Samples(0, 0, None)
"""pmap's in_axes of samples of which each device has its own; all share the scaling."""

_mapped: weakref.WeakSet[Callable] = weakref.WeakSet()
"""What was handed to pmap."""


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Lets go at its end of the programs that were compiled within it.

    pmap's cache keeps each function that it was ever given, by a value that refers to
    its own key: megabytes for each run of a program that trains again and again.
    """
    before = set(_mapped)
    is_interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        is_interrupted = True
        raise
    finally:
        # A program that is running is let go when it ends, which Ctrl-C does not await.
        for function in () if is_interrupted else set(_mapped) - before:
            _evict(function)


def make_epoch(train_step: Step, eval_step: Callable, devices: Devices) -> Callable:
    """Returns epoch(state, ids, evaluated, resident), a whole epoch in one call.

    Args:
      train_step: (state, batch, learning_rates) -> (state, StepResult, grads).
      eval_step: (params, batch_stats, batch) -> (sums, outputs).
      devices: this process's.

    Returns:
      A function of the state, replicated and donated; ids [devices, steps, rows] of the
      training split; evaluated [devices, batches, rows], ids of the evaluated splits;
      and what stays on the devices. It returns (state, StepResult of arrays [devices,
      steps], sums [devices, batches, 2], outputs [devices, batches, rows, ...]).
    """
    # `resident` lies on every device already, so it is not mapped. The state is
    # donated, or it would be in memory twice.
    return _map(
        _epoch(train_step, eval_step),
        devices,
        in_axes=(0, 0, 0, None),
        donate_argnums=0,
    )


def make_epochs(train_step: Step, eval_step: Callable, devices: Devices) -> Callable:
    """Returns epochs(state, ids, count, evaluated, resident), several in one call.

    As `make_epoch`, but for ids [devices, epochs, steps, rows], of which the first
    `count` epochs run: one program for any number of them. Results and sums get an axis
    [devices, epochs, ...]; outputs are the last epoch's.
    """
    return _map(
        _epochs(_epoch(train_step, eval_step)),
        devices,
        in_axes=(0, 0, None, 0, None),
        donate_argnums=0,
    )


class Own(NamedTuple):
    """What each of many networks has of its own beside its state.

    Attributes:
      settings: name -> () value of each setting that differs between them.
      learning_rates: [updates] float32.
      order: () int32, index of its batches; None: all have the same.
      split: () int32, index of its evaluated batches; None: all have the same.
    """

    settings: dict[str, Any]
    learning_rates: Any
    order: Any
    split: Any


def make_members(
    train_step: Step, eval_step: Callable, devices: Devices, together: int
) -> Callable:
    """Returns members(state, orders, count, evaluated, own, train, test).

    Many networks at once, several epochs in one call. Each lives on one device alone,
    which trains it as it would a run of its own.

    Args:
      train_step: (settings, state, batch, learning_rates) -> (state, results, grads).
      eval_step: (settings, params, batch_stats, batch) -> (sums, outputs).
      devices: this process's.
      together: networks of a device that go through a step together, of which it has a
        multiple; those of a further block follow when the epochs of these are done.

    Returns:
      A function of the state [devices, networks, ...], donated; orders [orders, epochs,
      steps, rows] of which the first `count` epochs run; evaluated [splits, batches,
      rows]; `Own` of arrays [devices, networks, ...]; and the training and evaluated
      samples on every device. It returns (state, results [devices, networks, epochs,
      steps], sums [devices, networks, epochs, batches, 2], outputs of the last epoch).
    """

    def members(state, orders, count, evaluated, own: Own, train, test):
        def member(mine):
            state, own = mine
            resident = Resident(train, test, own.learning_rates)
            steps = (
                _bound(train_step, own.settings),
                functools.partial(eval_step, own.settings),
            )
            epochs = _epochs(_epoch(*steps, axis_name=None))
            ids, evaluated_ids = _own(orders, own.order), _own(evaluated, own.split)
            return epochs(state, ids, count, evaluated_ids, resident)

        return _over_members(member, together)((state, own))

    in_axes = (0, None, None, None, 0, None, None)
    return _map(members, devices, in_axes=in_axes, donate_argnums=0)


def make_steps(train_step: Step, devices: Devices) -> Callable:
    """Returns steps(state, ids, samples, learning_rates) -> (state, StepResult).

    The training half of `make_epoch`, with samples [devices, samples, ...] of which
    each device has its own, and `ids` [devices, steps, rows] places in them.
    """
    return _map(
        _training(train_step), devices, in_axes=(0, 0, OWN, None), donate_argnums=0
    )


def make_evaluation(eval_step: Callable, devices: Devices) -> Callable:
    """Returns evaluation(state, ids, samples) -> (sums, outputs).

    The other half of `make_epoch`, with samples and `ids` [devices, batches, rows] as
    in `make_steps`.
    """
    return _map(_evaluation(eval_step), devices, in_axes=(0, 0, OWN))


def make_recorded_step(train_step: Callable, devices: Devices) -> Callable:
    """Returns step(state, ids, samples, learning_rates) -> what `train_step` returns.

    A single step, with samples and `ids` [devices, rows] as in `make_steps`.
    """

    def step(state, ids: jax.Array, samples: Samples, learning_rates: jax.Array):
        return train_step(state, gather(samples, ids), learning_rates)

    return _map(step, devices, in_axes=(0, 0, OWN, None))


def put(tree: Any, devices: Devices) -> Any:
    """Copies NumPy arrays to every device, without a leading axis.

    A CPU's devices share one copy, or the array itself if it is aligned: who puts an
    array does not write to it any more.
    """
    if devices[0].platform == "cpu":
        tree = jax.tree.map(aligned, tree)
    return jax.device_put(tree, _sharding(devices))


def put_members(tree: Any, devices: Devices, rows: int) -> Any:
    """Divides arrays [members, ...] among devices: [devices, rows, ...].

    The last member fills up what is left.
    """
    count = jax.tree.leaves(tree)[0].shape[0]
    places = np.minimum(np.arange(rows * len(devices)), count - 1)
    divided = jax.tree.map(
        lambda x: np.asarray(x)[places].reshape(len(devices), rows, *x.shape[1:]), tree
    )
    return jax.device_put(divided, _sharding(devices, AXIS))


def read_members(tree: Any, count: int) -> Any:
    """Returns [devices, members of each, ...] as NumPy arrays [count, ...]."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:count], tree)


def put_rows(
    samples: Samples, ids: np.ndarray, devices: Devices
) -> tuple[np.ndarray, Samples]:
    """Copies to each device only the samples of its ids; they are there on return.

    Args:
      samples: on the host.
      ids: [devices, ...] sample ids.
      devices: this process's.

    Returns:
      The places of those ids in the device's samples [devices, ...], where padding
      stays as it is, and the samples.
    """
    read = samples.read(ids.reshape(len(ids), -1))
    # Waits, so that a prefetched chunk is on the devices before it is asked for.
    inputs, targets = jax.block_until_ready(
        jax.device_put(read[:2], _sharding(devices, AXIS))
    )
    places = np.arange(ids[0].size, dtype=np.int32).reshape(ids.shape[1:])
    places = np.where(ids == batches.PADDING, ids, places)
    return places, samples._replace(inputs=inputs, targets=targets)


def shard(ids: np.ndarray, count: int, microbatches: int = 1) -> np.ndarray:
    """Global batches [..., batch] -> [devices, ..., rows], each rank's slice of them.

    Args:
      ids: sample ids.
      count: this process's devices.
      microbatches: number of microbatches in a batch; a rank has its slice of each.
    """
    # Ranks are numbered by process, then by device.
    first = count * jax.process_index()
    world_size = count * jax.process_count()
    # A rank alone has all rows, without a copy.
    if world_size == 1:
        return ids[None]
    return np.stack(
        [
            batches.rank_slice(ids, rank, world_size, microbatches)
            for rank in range(first, first + count)
        ]
    )


def replicate(tree: Any, devices: Devices) -> Any:
    """Copies a pytree to each device, along a leading [devices] axis."""
    copies = jax.tree.map(
        lambda x: np.broadcast_to(np.asarray(x), (len(devices), *np.shape(x))), tree
    )
    return jax.device_put(copies, _sharding(devices, AXIS))


def as_in_first(tree: Any) -> Any:
    """Returns process 0's values in every process, as NumPy arrays.

    All processes must know their shapes.
    """
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def first(tree: Any) -> Any:
    """Returns the first device's copy, as NumPy arrays."""
    # Reads one of the equal copies. A streamed epoch's NumPy results have only one.
    return jax.tree.map(
        lambda x: np.asarray(x if len(x) == 1 else x.addressable_data(0))[0], tree
    )


def unshard(outputs: jax.Array | np.ndarray, count: int) -> np.ndarray:
    """Joins rows of all processes and devices into samples in order.

    Args:
      outputs: [devices, batches, rows, ...] of this process.
      count: samples to keep; the rest are padding.

    Returns:
      [count, ...].
    """
    gathered = np.asarray(outputs)
    if jax.process_count() > 1:
        everywhere = np.asarray(multihost_utils.process_allgather(gathered))
        gathered = everywhere.reshape(-1, *gathered.shape[1:])
    rows = np.moveaxis(gathered, 0, 1)
    return rows.reshape(-1, *rows.shape[3:])[:count]


class Compiled:
    """A pmapped function that is compiled ahead of its first call.

    Each new shape of the second argument is compiled; the other arguments must keep
    their shapes.

    Attributes:
      seconds: time spent compiling so far.
    """

    def __init__(self, function: Callable):
        self._function = function
        self._programs = {}
        self.seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        """Calls the function."""
        # Across processes pmap compiles at its first call, and `seconds` stays 0.
        if jax.process_count() > 1:
            return self._function(*args)
        shape = args[1].shape
        if shape not in self._programs:
            self._programs[shape] = self._compile(*args)
        return self._programs[shape](*args)

    def _compile(self, *args: Any) -> Callable:
        start = time.perf_counter()
        program = self._function.lower(*args).compile()
        self.seconds += time.perf_counter() - start
        return program


def _bound(step: Step, settings: dict[str, Any]) -> Step:
    """Returns a network's step, of one that takes its settings first."""
    if not isinstance(step, Diagnosed):
        return functools.partial(step, settings)
    plain, measured = (functools.partial(f, settings) for f in step[:2])
    return step._replace(step=plain, measured=measured)


def _own(alternatives: jax.Array, index: jax.Array | None) -> jax.Array:
    return alternatives[0] if index is None else alternatives[index]


def _over_members(member: Callable, together: int) -> Callable:
    """Returns `member` mapped over the networks of a device, in blocks."""

    def block(mine):
        state, own = mine
        # All have seen as many batches: with one count, networks of one seed share the
        # masks that are drawn of it.
        axes = jax.tree.map(lambda _: 0, state)._replace(step=None)
        state = state._replace(step=state.step[0])
        each = jax.vmap(member, ((axes, 0),), (axes, 0, 0, 0))
        state, *reported = each((state, own))
        step = jnp.broadcast_to(state.step, (together,))
        return state._replace(step=step), *reported

    def mapped(mine):
        blocks = jax.tree.map(lambda x: x.reshape(-1, together, *x.shape[1:]), mine)
        if len(jax.tree.leaves(blocks)[0]) == 1:
            return block(mine)
        results = lax.map(block, blocks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)

    return mapped


def _epochs(epoch: Callable) -> Callable:
    """Returns epochs(state, ids, count, evaluated, resident) on one device.

    Args:
      epoch: as from `_epoch`.
    """
    # Traced once, for its shapes and for the loop.
    epoch = jax.jit(epoch, inline=True)

    def epochs(state, ids: jax.Array, count: jax.Array, evaluated, resident: Resident):
        def body(number, carry):
            state, results, sums, _ = carry
            state, *reported, outputs = epoch(state, ids[number], evaluated, resident)
            results, sums = jax.tree.map(
                lambda whole, one: whole.at[number].set(one),
                (results, sums),
                tuple(reported),
            )
            return state, results, sums, outputs

        shapes = jax.eval_shape(epoch, state, ids[0], evaluated, resident)
        results, sums = jax.tree.map(
            lambda one: jnp.zeros((len(ids), *one.shape), one.dtype), shapes[1:3]
        )
        outputs = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes[3])
        return lax.fori_loop(0, count, body, (state, results, sums, outputs))

    return epochs


def _epoch(
    train_step: Step, eval_step: Callable, axis_name: str | None = AXIS
) -> Callable:
    """Returns epoch(state, ids, evaluated, resident) on one device.

    Args:
      train_step: as in `make_epoch`.
      eval_step: as in `make_epoch`.
      axis_name: mapped axis of the devices that share evaluated batches, or None.
    """
    train = _training(train_step)
    evaluate = _evaluation(eval_step, axis_name)

    def epoch(state, ids: jax.Array, evaluated: jax.Array, resident: Resident):
        state, results = train(state, ids, resident.train, resident.learning_rates)
        return state, results, *evaluate(state, evaluated, resident.evaluated)

    return epoch


def _training(train_step: Step) -> Callable:
    """Returns train(state, ids, samples, learning_rates), a scan over steps."""
    if isinstance(train_step, Diagnosed):
        return _diagnosed_training(train_step)

    def train(state, ids: jax.Array, samples: Samples, learning_rates: jax.Array):
        def body(state, ids):
            state, result, _ = train_step(state, gather(samples, ids), learning_rates)
            return state, result

        return lax.scan(body, state, ids)

    return train


def _diagnosed_training(run: Diagnosed) -> Callable:
    def train(state, ids: jax.Array, samples: Samples, learning_rates: jax.Array):
        # Of an epoch that has been recorded to its end nothing is left to diagnose.
        if not len(ids):
            return _training(run.step)(state, ids, samples, learning_rates)

        def batch(place):
            return gather(samples, ids[place])

        return diagnosis.scan(run, batch, state, learning_rates, len(ids))

    return train


def _evaluation(eval_step: Callable, axis_name: str | None = AXIS) -> Callable:
    """Returns evaluate(state, ids, samples), a scan over batches."""

    def evaluate(state, ids: jax.Array, samples: Samples):
        def body(_, ids):
            batch = gather(samples, ids)
            return None, eval_step(state.params, state.batch_stats, batch)

        _, (sums, outputs) = lax.scan(body, None, ids)
        # One sum over the devices for all batches.
        return (lax.psum(sums, axis_name) if axis_name else sums), outputs

    return evaluate


def _map(function: Callable, devices: Devices, **options: Any) -> Callable:
    _mapped.add(function)
    return jax.pmap(function, AXIS, devices=_named(devices), **options)


def _evict(function: Callable) -> None:
    """Removes a function from pmap's cache."""
    # jax.clear_caches would take the caller's own programs too. There is no public way
    # to one function, and in another JAX perhaps no such cache.
    cache = getattr(sys.modules.get("jax._src.pmap"), "_cached_shard_map", None)
    evict = getattr(cache, "evict_function", None)
    if evict:
        evict(function)


def _named(devices: Devices) -> Devices | None:
    """Returns pmap's `devices`: None where several processes train on all of theirs."""
    return devices if jax.process_count() == 1 else None


def _sharding(devices: Devices, *axes: str) -> jax.sharding.Sharding:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

"""The only file that says pmap: whole epochs, or recorded single steps, on every device.

The data set is resident on each device. Arrays that differ between devices, and the state,
carry a leading [devices] axis; the state's copies are equal.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from jaxnn.experiment import batches
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Dataset
from jaxnn.experiment.evaluation import Split
from jaxnn.train_step import Batch

AXIS = "devices"
Scaling = tuple[np.ndarray, np.ndarray] | None


class Resident(NamedTuple):
    """What stays on the devices for the whole run.

    Attributes:
      train_inputs, train_targets: as in `Dataset`.
      inputs, targets: of every split that is evaluated, one after the other.
      learning_rates: [updates] float32.
      scaling: offset and scale that uint8 inputs go through when they are used; None: they are used as they are.
    """

    train_inputs: jax.Array
    train_targets: jax.Array
    inputs: jax.Array
    targets: jax.Array
    learning_rates: jax.Array
    scaling: Scaling


def choose_devices(experiment: Experiment) -> list[jax.Device]:
    """This process's devices to train on: `--num_devices`, or all of them.

    Raises:
      UserError: more asked for than there are, or the batch does not divide.
    """
    devices = jax.local_devices()
    if jax.process_count() > 1:
        return _all_devices(experiment, devices)
    count = experiment.num_devices or len(devices)
    if count > len(devices):
        raise UserError(f"--num_devices: {count} asked for, {len(devices)} here; for virtual CPU devices set "
                        f"XLA_FLAGS=--xla_force_host_platform_device_count={count}")
    rows, parts = experiment.batch_size // experiment.accumulation_steps, experiment.accumulation_steps
    if rows % count:
        divisor = f"the {count} devices here" + (f" times --accumulation_steps={parts}" if parts > 1 else "")
        fitting = max(number for number in range(1, count + 1) if rows % number == 0)
        raise UserError(f"--batch_size: {experiment.batch_size} is not divisible by {divisor}; change it, or leave "
                        f"devices out with --num_devices={fitting}")
    return devices[:count]


def _all_devices(experiment: Experiment, devices: list[jax.Device]) -> list[jax.Device]:
    """Those of this process, where several train on all that they have."""
    count = jax.device_count()
    if experiment.num_devices not in (0, count):
        raise UserError(f"--num_devices: {experiment.num_devices} asked for, but {jax.process_count()} processes train "
                        f"on all their devices, {count} here; leave it out")
    if experiment.batch_size % (count * experiment.accumulation_steps):
        raise UserError(f"--batch_size: {experiment.batch_size} is not divisible by --accumulation_steps="
                        f"{experiment.accumulation_steps} times {count} devices of {jax.process_count()} processes; "
                        "change it")
    return devices


def make_resident(data: Dataset, splits: Sequence[Split], learning_rates: np.ndarray,
                  devices: list[jax.Device]) -> Resident:
    """Puts the data set on every device; `splits` are evaluated after each epoch."""
    inputs, targets = (np.concatenate(arrays) if len(arrays) > 1 else np.asarray(arrays[0]) for arrays in (
        [split.inputs for split in splits], [split.targets for split in splits]))
    scaling = (data.scaling.offset, data.scaling.scale) if data.scaling and not data.scaled_on_host else None
    arrays = Resident(np.asarray(data.train_inputs), data.train_targets, inputs, targets, learning_rates, scaling)
    return jax.device_put(arrays, _sharding(devices))


def make_epoch(train_step: Callable, eval_step: Callable, devices: list[jax.Device]) -> Callable:
    """Returns epoch(state, ids, evaluated, resident) -> (state, StepResult, sums, outputs): one call an epoch.

    `ids` is [devices, steps, rows], `evaluated` [devices, chunks, rows]. Results come stacked:
    StepResult [devices, steps], sums [devices, chunks, 2], outputs [devices, chunks, rows, ...].
    The state is donated.
    """

    def epoch(state, ids: jax.Array, evaluated: jax.Array, resident: Resident):
        def train_body(state, ids):
            batch = _gather(resident.train_inputs, resident.train_targets, ids, resident.scaling)
            state, result, _ = train_step(state, batch, resident.learning_rates)
            return state, result

        def eval_body(_, ids):
            batch = _gather(resident.inputs, resident.targets, ids, resident.scaling)
            return None, eval_step(state.params, state.batch_stats, batch)

        state, results = lax.scan(train_body, state, ids)
        _, (sums, outputs) = lax.scan(eval_body, None, evaluated)
        return state, results, lax.psum(sums, AXIS), outputs

    return jax.pmap(epoch, AXIS, in_axes=(0, 0, 0, None), donate_argnums=0, devices=_named(devices))


def make_recorded_step(train_step: Callable, devices: list[jax.Device]) -> Callable:
    """Returns step(state, ids, resident) -> what `train_step` returns, for `ids` [devices, rows]."""

    def step(state, ids: jax.Array, resident: Resident):
        batch = _gather(resident.train_inputs, resident.train_targets, ids, resident.scaling)
        return train_step(state, batch, resident.learning_rates)

    return jax.pmap(step, AXIS, in_axes=(0, 0, None), devices=_named(devices))


def shard(ids: np.ndarray, count: int, parts: int = 1) -> np.ndarray:
    """Global batches [..., batch] -> [devices, ..., batch / all devices]: each of this process's its rank's slice.

    Args:
      ids: sample ids.
      count: of this process's devices.
      parts: that a batch is computed in, of each of which a rank has its slice.
    """
    first, world_size = count * jax.process_index(), count * jax.process_count()
    return np.stack([batches.rank_slice(ids, rank, world_size, parts) for rank in range(first, first + count)])


def replicate(tree: Any, devices: list[jax.Device]) -> Any:
    """A copy on each device, along a leading [devices] axis."""
    copies = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (len(devices), *np.shape(x))), tree)
    return jax.device_put(copies, _sharding(devices, AXIS))


def as_in_first(tree: Any) -> Any:
    """What process 0 has, in every process, as NumPy arrays of the shapes that all of them know."""
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def first(tree: Any) -> Any:
    """The first device's copy, as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x if len(x) == 1 else x.addressable_data(0))[0], tree)


def unshard(outputs: jax.Array, count: int) -> np.ndarray:
    """[devices, chunks, rows, ...] of each process -> the first `count` samples in order, [count, ...], in all."""
    gathered = np.asarray(outputs)
    if jax.process_count() > 1:
        gathered = np.asarray(multihost_utils.process_allgather(gathered)).reshape(-1, *gathered.shape[1:])
    rows = np.moveaxis(gathered, 0, 1)
    return rows.reshape(-1, *rows.shape[3:])[:count]


def one_ahead(epochs: Iterator[Any]) -> Iterator[Any]:
    """Yields each epoch after the next has been started, so that the device works while the host reads and writes.

    No more than two calls are ever under way: many unread collective calls deadlock XLA's virtual CPU devices.
    """
    started = next(epochs)
    for following in epochs:
        yield started
        started = following
    yield started


class Compiled:
    """A pmapped function, compiled ahead for each new shape of its second argument.

    Attributes:
      seconds: spent compiling so far.
    """

    def __init__(self, function: Callable):
        self._function, self._programs, self.seconds = function, {}, 0.0

    def __call__(self, *args: Any) -> Any:
        """Calls the function, compiled for these shapes; where processes share it, compiled by the call itself."""
        if jax.process_count() > 1:
            return self._function(*args)
        shape = args[1].shape
        if shape not in self._programs:
            start = time.perf_counter()
            self._programs[shape] = self._function.lower(*args).compile()
            self.seconds += time.perf_counter() - start
        return self._programs[shape](*args)


def _named(devices: list[jax.Device]) -> list[jax.Device] | None:
    """Of several processes all devices take part, and are not to be named."""
    return devices if jax.process_count() == 1 else None


def _sharding(devices: list[jax.Device], *axes: str) -> jax.sharding.Sharding:
    return jax.sharding.NamedSharding(jax.sharding.Mesh(np.array(devices), (AXIS,)), jax.sharding.PartitionSpec(*axes))


def _gather(inputs: jax.Array, targets: jax.Array, ids: jax.Array, scaling: Scaling) -> Batch:
    rows = jnp.maximum(ids, 0)
    return Batch(
        scale_bytes(inputs.at[rows].get(mode="promise_in_bounds"), scaling),
        targets.at[rows].get(mode="promise_in_bounds"),
        (ids != batches.PADDING).astype(jnp.float32),
    )


def scale_bytes(inputs: jax.Array, scaling: Scaling) -> jax.Array:
    """uint8 images as float32, scaled; everything else as it is."""
    if inputs.dtype != jnp.uint8:
        return inputs
    inputs = inputs.astype(jnp.float32)
    if scaling is None:
        return inputs
    offset, scale = (jnp.broadcast_to(array, inputs.shape) for array in scaling)
    return (inputs - offset) * scale

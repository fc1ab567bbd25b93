"""The only file that says pmap: whole epochs, chunks of many steps, or recorded single
steps, on every device.

Arrays that differ between devices, and the state, carry a leading [devices] axis; the
state's copies are equal.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.samples import Samples
from jaxnn.gathering import Resident, gather

AXIS = "devices"
OWN = Samples(0, 0, None)
"""pmap's axes of samples that each device has of its own."""


def make_epoch(
    train_step: Callable, eval_step: Callable, devices: list[jax.Device]
) -> Callable:
    """Returns epoch(state, ids, evaluated, resident) -> (state, StepResult, sums,
    outputs): one call an epoch.

    `ids` is [devices, steps, rows], `evaluated` [devices, chunks, rows]. Results come
    stacked: StepResult [devices, steps], sums [devices, chunks, 2], outputs [devices,
    chunks, rows, ...]. The state is donated.
    """
    train, evaluate = _training(train_step), _evaluation(eval_step)

    def epoch(state, ids: jax.Array, evaluated: jax.Array, resident: Resident):
        state, results = train(state, ids, resident.train, resident.learning_rates)
        return state, results, *evaluate(state, evaluated, resident.evaluated)

    return jax.pmap(
        epoch, AXIS, in_axes=(0, 0, 0, None), donate_argnums=0, devices=_named(devices)
    )


def make_steps(train_step: Callable, devices: list[jax.Device]) -> Callable:
    """Returns steps(state, ids, samples, learning_rates) -> (state, StepResult), with
    each device's own samples.

    The training half of `make_epoch`: `ids` [devices, steps, rows] are places in the
    device's samples.
    """
    return jax.pmap(
        _training(train_step),
        AXIS,
        in_axes=(0, 0, OWN, None),
        donate_argnums=0,
        devices=_named(devices),
    )


def make_evaluation(eval_step: Callable, devices: list[jax.Device]) -> Callable:
    """Returns evaluation(state, ids, samples) -> (sums, outputs), with each device's
    own samples.

    The other half of `make_epoch`: `ids` [devices, chunks, rows] are places in the
    device's samples.
    """
    return jax.pmap(
        _evaluation(eval_step), AXIS, in_axes=(0, 0, OWN), devices=_named(devices)
    )


def make_recorded_step(train_step: Callable, devices: list[jax.Device]) -> Callable:
    """Returns step(state, ids, samples, learning_rates) -> what `train_step` returns,
    for `ids` [devices, rows]."""

    def step(state, ids: jax.Array, samples: Samples, learning_rates: jax.Array):
        return train_step(state, gather(samples, ids), learning_rates)

    return jax.pmap(step, AXIS, in_axes=(0, 0, OWN, None), devices=_named(devices))


def _training(train_step: Callable) -> Callable:
    def train(state, ids: jax.Array, samples: Samples, learning_rates: jax.Array):
        def body(state, ids):
            state, result, _ = train_step(state, gather(samples, ids), learning_rates)
            return state, result

        return lax.scan(body, state, ids)

    return train


def _evaluation(eval_step: Callable) -> Callable:
    def evaluate(state, ids: jax.Array, samples: Samples):
        def body(_, ids):
            return None, eval_step(
                state.params, state.batch_stats, gather(samples, ids)
            )

        _, (sums, outputs) = lax.scan(body, None, ids)
        return lax.psum(sums, AXIS), outputs

    return evaluate


def put(tree: Any, devices: list[jax.Device]) -> Any:
    """A copy of NumPy arrays that all the devices read."""
    return jax.device_put(tree, _sharding(devices))


def put_rows(
    samples: Samples, ids: np.ndarray, devices: list[jax.Device]
) -> tuple[np.ndarray, Samples]:
    """Puts onto each device the samples of its ids [devices, ...] alone; they are there
    when this returns.

    Returns:
      The places of those ids in the device's samples, padding as it was, and the
      samples.
    """
    read = samples.read(ids.reshape(len(ids), -1))
    inputs, targets = jax.block_until_ready(
        jax.device_put(read[:2], _sharding(devices, AXIS))
    )
    places = np.arange(ids[0].size, dtype=np.int32).reshape(ids.shape[1:])
    return np.where(ids == batches.PADDING, ids, places), samples._replace(
        inputs=inputs, targets=targets
    )


def shard(ids: np.ndarray, count: int, parts: int = 1) -> np.ndarray:
    """Global batches [..., batch] -> [devices, ..., batch / all devices]: each of this
    process's its rank's slice.

    Args:
      ids: sample ids.
      count: of this process's devices.
      parts: that a batch is computed in, of each of which a rank has its slice.
    """
    first, world_size = count * jax.process_index(), count * jax.process_count()
    return np.stack(
        [
            batches.rank_slice(ids, rank, world_size, parts)
            for rank in range(first, first + count)
        ]
    )


def replicate(tree: Any, devices: list[jax.Device]) -> Any:
    """A copy on each device, along a leading [devices] axis."""
    copies = jax.tree.map(
        lambda x: np.broadcast_to(np.asarray(x), (len(devices), *np.shape(x))), tree
    )
    return jax.device_put(copies, _sharding(devices, AXIS))


def as_in_first(tree: Any) -> Any:
    """What process 0 has, in every process, as NumPy arrays of the shapes that all of
    them know."""
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def first(tree: Any) -> Any:
    """The first device's copy, as NumPy arrays."""
    return jax.tree.map(
        lambda x: np.asarray(x if len(x) == 1 else x.addressable_data(0))[0], tree
    )


def unshard(outputs: jax.Array, count: int) -> np.ndarray:
    """[devices, chunks, rows, ...] of each process -> the first `count` samples in
    order, [count, ...], in all."""
    gathered = np.asarray(outputs)
    if jax.process_count() > 1:
        gathered = np.asarray(multihost_utils.process_allgather(gathered)).reshape(
            -1, *gathered.shape[1:]
        )
    rows = np.moveaxis(gathered, 0, 1)
    return rows.reshape(-1, *rows.shape[3:])[:count]


class Compiled:
    """A pmapped function, compiled ahead for each new shape of its second argument.

    Attributes:
      seconds: spent compiling so far.
    """

    def __init__(self, function: Callable):
        self._function, self._programs, self.seconds = function, {}, 0.0

    def __call__(self, *args: Any) -> Any:
        """Calls the function, compiled for these shapes; where processes share it,
        compiled by the call itself."""
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
    return jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(devices), (AXIS,)), jax.sharding.PartitionSpec(*axes)
    )

"""Epochs over data that do not fit on the devices: chunks of many steps.

While the devices work on one chunk, a thread reads the next. A chunk holds only the
rows of its batches, and each process reads only its own. Steps, samples and their order
are those of `epochs.ResidentEpochs`: a run's files are equal to the bit.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import parallel
from jaxnn.diagnosis import Step
from jaxnn.epochs import Epoch, Work
from jaxnn.experiment.data.samples import MEBIBYTE, Samples
from jaxnn.experiment.errors import UserError
from jaxnn.train_step import StepResult, TrainState

CHUNK = 2**26
"""Largest bytes of a chunk on a device; reading them takes a fraction of a second."""
IN_USE = 2
"""Chunks that are on a device at once: the one worked on and the next."""
FEWEST = 3
"""Batches that a chunk must have room for.

With room for three, no chunk is left with a single batch. XLA would unroll the loop of
one, and round differently.
"""


class Chunk(NamedTuple):
    """Consecutive batches with their samples, on the devices.

    Attributes:
      first: index of the first batch among those of the epoch's training or evaluation.
      ids: [devices, batches, rows] places in the device's samples.
      samples: [devices, samples, ...] inputs and targets.
      is_last: True if no chunk of the epoch's training or evaluation follows.
    """

    first: int
    ids: np.ndarray
    samples: Samples
    is_last: bool


class StreamedEpochs:
    """Epochs over data that are read chunk by chunk.

    Args:
      work: what they go through.
      train_step: (state, batch, learning_rates) -> (state, StepResult, grads).
      eval_step: (params, batch_stats, batch) -> (sums, outputs).
      watch: called after each chunk with the index in the run of its first step, and
        its results [steps]; may raise.
      is_due: called after each chunk within an epoch; True to stop there.

    Raises:
      UserError: `--device_cache_mb` does not hold the batches of two small chunks.
    """

    # `run` waits for its chunks: to start the next epoch first would delay the log.
    run_ahead = False

    def __init__(
        self,
        work: Work,
        train_step: Step,
        eval_step: Callable,
        watch: Callable[[int, StepResult], None],
        is_due: Callable[[], bool],
    ):
        self._work = work
        self._watch = watch
        self._is_due = is_due
        self._steps = parallel.Compiled(parallel.make_steps(train_step, work.devices))
        self._evaluation = parallel.Compiled(
            parallel.make_evaluation(eval_step, work.devices)
        )
        self._learning_rates = parallel.put(work.learning_rates, work.devices)
        # Chunks that are being read, and the (epoch, step) at which they begin.
        self._chunks = iter(())
        self._next = (-1, 0)
        _check_room(work)

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        return self._steps.seconds + self._evaluation.seconds

    def run(
        self, number: int, done: int, state: TrainState
    ) -> tuple[TrainState, Epoch]:
        """Runs an epoch; see `epochs.Epochs`."""
        # The chunks of this epoch are being read already, unless it is the first or
        # begins after steps that were recorded.
        if self._next != (number, done):
            self._chunks = prefetched(self._read(number, done))
        self._next = (number + 1, 0)
        results = None
        is_whole = True
        if done < self._work.plan[number]:
            first = self._work.first_step(number)
            state, results, is_whole = self._train(state, first)
        if not is_whole:
            return state, Epoch(results, None, None)
        return state, Epoch(results, *self._evaluate(state))

    def _train(
        self, state: TrainState, first: int
    ) -> tuple[TrainState, StepResult, bool]:
        """Trains on the chunks of an epoch.

        Args:
          state: replicated over the devices.
          first: index in the run of the epoch's first step.

        Returns:
          The state, results [1, steps], and True if no signal stopped it.
        """
        results = []
        is_due = False
        for chunk in self._chunks:
            state, result = self._steps(
                state, chunk.ids, chunk.samples, self._learning_rates
            )
            results.append(parallel.first(result))
            self._watch(first + chunk.first, results[-1])
            if chunk.is_last or (is_due := self._is_due()):
                break
        results = jax.tree.map(lambda *arrays: np.concatenate(arrays)[None], *results)
        return state, results, not is_due

    def _evaluate(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """Returns sums of every evaluated batch, and outputs of the test split's."""
        sums = []
        outputs = []
        for chunk in self._chunks:
            chunk_sums, chunk_outputs = self._evaluation(
                state, chunk.ids, chunk.samples
            )
            sums.append(parallel.first(chunk_sums))
            # Outputs of other splits may be large, and are not used.
            wanted = max(self._work.test_batches - chunk.first, 0)
            outputs.append(np.asarray(chunk_outputs)[:, :wanted])
            if chunk.is_last:
                break
        return np.concatenate(sums)[None], np.concatenate(outputs, axis=1)

    def _read(self, number: int, done: int) -> Iterator[Chunk]:
        """Yields the chunks of an epoch and of all that follow."""
        work = self._work
        evaluated = work.evaluated_shard()
        for epoch in range(number, len(work.plan)):
            first = done if epoch == number else 0
            ids = work.shard(work.global_batches(epoch, first))
            yield from _cut(work, work.train, ids, first)
            yield from _cut(work, work.evaluated, evaluated)


def prefetched(chunks: Iterator[Any]) -> Iterator[Any]:
    """Yields each item while a thread makes the next one, and no more than that."""
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        following = thread.submit(next, chunks, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, chunks, None)
            yield item
    finally:
        # Any thread may collect an abandoned generator as garbage, this very one
        # included, which must not wait for itself.
        thread.shutdown(wait=False)


def _cut(
    work: Work, samples: Samples, ids: np.ndarray, first: int = 0
) -> Iterator[Chunk]:
    """Cuts batches [devices, batches, rows] into chunks, put on the devices."""
    _, steps, rows = ids.shape
    most = _batches_at_once(work, samples, steps, rows)
    # Chunks of nearly one size: each size is a program to compile.
    bounds = np.zeros(1, int)
    if steps:
        bounds = np.linspace(0, steps, -(-steps // most) + 1).astype(int)
    for start, end in itertools.pairwise(bounds):
        places, own = parallel.put_rows(samples, ids[:, start:end], work.devices)
        yield Chunk(int(first + start), places, own, bool(end == steps))


def _check_room(work: Work) -> None:
    """Raises UserError if the memory holds too few batches of either kind."""
    ranks = len(work.devices) * jax.process_count()
    rows = work.experiment.batch_size // ranks
    _batches_at_once(work, work.train, max(work.plan), rows)
    steps, rows = work.evaluated_ids.shape
    _batches_at_once(work, work.evaluated, steps, rows // ranks)


def _batches_at_once(work: Work, samples: Samples, steps: int, rows: int) -> int:
    """Returns the batches that a chunk holds at most.

    Args:
      work: knows the memory of a device.
      samples: where the batches come from.
      steps: number of batches.
      rows: rows of a batch on a device.

    Raises:
      UserError: the memory holds too few.
    """
    share = work.experiment.device_cache_mb * MEBIBYTE // IN_USE
    fewest = min(FEWEST, steps)
    batch = samples.num_bytes // len(samples.inputs) * rows
    if share < fewest * batch:
        least = math.ceil(IN_USE * fewest * batch / MEBIBYTE)
        raise UserError(
            f"--device_cache_mb: {work.experiment.device_cache_mb} MiB hold less than "
            f"{IN_USE * fewest} batches of {batch / MEBIBYTE:.3g} MiB on a device; "
            f"raise it to {least} at least, or lower --batch_size"
        )
    return max(min(share, CHUNK) // batch, fewest)

"""Epochs over data that do not fit on the devices: chunks of many steps, the next one
read while one is worked on.

Each chunk holds only the rows of its batches, and each process reads only its own. The
steps are those of `epochs.ResidentEpochs`, on the same samples in the same order: a
run's files are equal to the bit.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import parallel
from jaxnn.epochs import Epoch, Work
from jaxnn.experiment.data.samples import MEBIBYTE, Samples
from jaxnn.experiment.errors import UserError
from jaxnn.train_step import StepResult, TrainState

CHUNK = 2**26
"""Bytes of a chunk on a device where its share of the memory is larger: read in a
fraction of a second."""
IN_USE = 2
"""Chunks that are on a device together: the one worked on and the next."""
FEWEST = 3
"""Batches that a chunk must have room for: so none is left with one, whose loop XLA
would unroll, and round anew."""


class Chunk(NamedTuple):
    """Consecutive batches with their samples, on the devices.

    Attributes:
      first: number of the first one among those that an epoch trains on, or evaluates.
      ids: [devices, batches, rows] places in the device's samples.
      samples: [devices, samples, ...] inputs and targets.
      is_last: of those.
    """

    first: int
    ids: np.ndarray
    samples: Samples
    is_last: bool


class StreamedEpochs:
    """Epochs over data that are read chunk by chunk.

    Args:
      work: what they go through.
      train_step: of `train_step.make_train_step`.
      eval_step: of `train_step.make_eval_step`.
      watch: called after each chunk with its first step's number in the run and the
        results [steps]; it may raise.
      is_due: called after each chunk within an epoch; whether to stop there.

    Raises:
      UserError: the memory does not hold the batches of two small chunks.
    """

    run_ahead = False

    def __init__(
        self,
        work: Work,
        train_step: Callable,
        eval_step: Callable,
        watch: Callable[[int, StepResult], None],
        is_due: Callable[[], bool],
    ):
        self._work, self._watch, self._is_due = work, watch, is_due
        self._steps = parallel.Compiled(parallel.make_steps(train_step, work.devices))
        self._evaluation = parallel.Compiled(
            parallel.make_evaluation(eval_step, work.devices)
        )
        self._learning_rates = parallel.put(work.learning_rates, work.devices)
        self._chunks, self._next = iter(()), (-1, 0)
        ranks = len(work.devices) * jax.process_count()
        _batches_at_once(
            work, work.train, max(work.plan), work.experiment.batch_size // ranks
        )
        steps, rows = work.evaluated_ids.shape
        _batches_at_once(work, work.evaluated, steps, rows // ranks)

    @property
    def compile_seconds(self) -> float:
        """Spent compiling so far."""
        return self._steps.seconds + self._evaluation.seconds

    def run(
        self, number: int, taken: int, state: TrainState
    ) -> tuple[TrainState, Epoch]:
        """Goes through an epoch (0-based) after the steps of it that have been taken.

        Args:
          number: of the epoch.
          taken: steps.
          state: replicated; donated.
        """
        if self._next != (number, taken):
            self._chunks = prefetched(self._read(number, taken))
        self._next, plan, results, is_whole = (
            (number + 1, 0),
            self._work.plan,
            None,
            True,
        )
        if taken < plan[number]:
            state, results, is_whole = self._train(state, self._work.first_step(number))
        return state, Epoch(
            results, *(self._evaluate(state) if is_whole else (None, None))
        )

    def _train(
        self, state: TrainState, first: int
    ) -> tuple[TrainState, StepResult, bool]:
        """Takes the steps of an epoch, whose first is that of the run; whether it took
        them all."""
        results, is_due = [], False
        for chunk in self._chunks:
            state, result = self._steps(
                state, chunk.ids, chunk.samples, self._learning_rates
            )
            results.append(parallel.first(result))
            self._watch(first + chunk.first, results[-1])
            if chunk.is_last or (is_due := self._is_due()):
                break
        return (
            state,
            jax.tree.map(lambda *arrays: np.concatenate(arrays)[None], *results),
            not is_due,
        )

    def _evaluate(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """Sums of every evaluated batch, and outputs of those of the test split."""
        sums, outputs = [], []
        for chunk in self._chunks:
            found = self._evaluation(state, chunk.ids, chunk.samples)
            sums.append(parallel.first(found[0]))
            outputs.append(
                np.asarray(found[1])[:, : max(self._work.test_batches - chunk.first, 0)]
            )
            if chunk.is_last:
                break
        return np.concatenate(sums)[None], np.concatenate(outputs, axis=1)

    def _read(self, number: int, taken: int) -> Iterator[Chunk]:
        """The chunks of this epoch and of all that follow."""
        work, evaluated = self._work, self._work.evaluated_shard()
        for epoch in range(number, len(work.plan)):
            done = taken if epoch == number else 0
            ids = work.shard(work.global_batches(epoch, done))
            yield from _cut(work, work.train, ids, done)
            yield from _cut(work, work.evaluated, evaluated)


def prefetched(chunks: Iterator[Any]) -> Iterator[Any]:
    """Each item, while a thread makes the next one, and no more than that."""
    thread = ThreadPoolExecutor(1, "prefetch")
    try:
        following = thread.submit(next, chunks, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, chunks, None)
            yield item
    finally:
        thread.shutdown(
            wait=False
        )  # by whichever thread collects this as garbage, perhaps that one


def _cut(
    work: Work, samples: Samples, ids: np.ndarray, first: int = 0
) -> Iterator[Chunk]:
    """Batches [devices, batches, rows] in chunks of nearly one size, so that few
    programs are compiled."""
    _, steps, rows = ids.shape
    most = _batches_at_once(work, samples, steps, rows)
    bounds = (
        np.linspace(0, steps, -(-steps // most) + 1).astype(int)
        if steps
        else np.zeros(1, int)
    )
    for start, end in itertools.pairwise(bounds):
        places, own = parallel.put_rows(samples, ids[:, start:end], work.devices)
        yield Chunk(int(first + start), places, own, bool(end == steps))


def _batches_at_once(work: Work, samples: Samples, steps: int, rows: int) -> int:
    """Batches that a chunk holds at most, out of so many of so many rows on a device."""
    share, fewest = (
        work.experiment.device_cache_mb * MEBIBYTE // IN_USE,
        min(FEWEST, steps),
    )
    batch = samples.num_bytes // len(samples.inputs) * rows
    if share < fewest * batch:
        raise UserError(
            f"--device_cache_mb: {work.experiment.device_cache_mb} MiB hold less than "
            f"{IN_USE * fewest} batches of {batch / MEBIBYTE:.3g} MiB on a device; "
            f"raise it to {math.ceil(IN_USE * fewest * batch / MEBIBYTE)} at least, or "
            "lower --batch_size"
        )
    return max(min(share, CHUNK) // batch, fewest)

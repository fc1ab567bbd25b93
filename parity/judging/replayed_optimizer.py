"""The optimizer of a recording beside that of its flags, measured on both sides."""

from collections.abc import Iterator, Sequence

from jaxnn.experiment.files.trace import Reader, select
from parity.judging.measure import Measurement
from parity.judging.optimizer_difference import Found, find
from parity.judging.replays import Replays
from parity.measured.history import Step, recorded_step
from parity.noise import FLOAT64
from parity.quantities import UPDATE

AROUND = 8
"""Steps before and after the diverging one that are measured."""


def beside_the_replay(
    replays: Replays, trace: Reader, failed: Sequence[Measurement]
) -> Found | None:
    """Returns how the recorded optimizer differs from the replayed one; None if it
    cannot be said.

    Args:
      replays: replays of the experiment that was recorded.
      trace: the recording.
      failed: measurements that failed; if none is of an update, the optimizer is right.
    """
    steps = [m.step for m in failed if m.definition.part == UPDATE]
    if not steps:
        return None
    first = max(trace.first, steps[0] - AROUND)
    learned = range(first, min(len(trace), steps[0] + AROUND + 1))
    recorded = list(_recorded(trace, learned))
    replayed = list(_replayed(replays, trace, recorded))
    pairs = zip(recorded, replayed)
    # The recording trains what is frozen here: the tensors that moved say so.
    if any(theirs.moments.keys() != ours.moments.keys() for theirs, ours in pairs):
        return None
    return find(recorded, replayed, failed)


def _recorded(trace: Reader, numbers: Sequence[int]) -> Iterator[Step]:
    for number in numbers:
        step = trace.read(number)
        if not step["skipped"]:
            yield recorded_step(number, step)


def _replayed(
    replays: Replays, trace: Reader, recorded: Sequence[Step]
) -> Iterator[Step]:
    """Yields what the flags' optimizer makes of the recorded state of each step."""
    replay = replays.under(())
    for step in recorded:
        inputs = replay.inputs(step.count, trace.read(step.count))
        outputs = replay.update(inputs, FLOAT64)
        after = select(outputs, "updated_moments")
        # The replay keeps none of what is frozen.
        before = {name: step.moments[name] for name in step.moments if name in after}
        yield step._replace(
            updated=select(outputs, "updated"), moments=before, updated_moments=after
        )

"""The updates of a recording against those of a port's optimizer, and nothing else."""

from collections.abc import Collection, Iterator

from parity.judging.measure import Measurement
from parity.judging.rounds import THOROUGH, Rounds
from parity.judging.tensors import judge_update
from parity.own.port import Port
from parity.own.recording import Ported
from parity.own.replay import PortReplay


def judge_updates(
    port: Port, threshold: float, forgotten: Collection[int] = ()
) -> Iterator[Measurement]:
    """Yields the measurements of every update, from the first step on.

    Args:
      port: the port and its recording.
      threshold: largest z that passes.
      forgotten: steps before which the moments become zero; where nothing is counted
        any more, the optimizer begins anew.
    """
    feed = port.feed()
    ported = port.ported
    for number in range(len(ported)):
        if feed and number in forgotten:
            begins = begins_anew(ported, number)
            feed = port.feed() if begins else feed.without_moments()
        if feed is None or ported.raw(number)["skipped"]:
            continue
        replay = PortReplay(ported, number, port.objective, feed)
        inputs = replay.inputs(number)
        rounds = Rounds(THOROUGH, threshold)
        yield from judge_update(replay, number, ported.read(number), inputs, rounds)
        feed.advance(ported.leaves(number), ported.gradients(number))


def begins_anew(ported: Ported, number: int) -> bool:
    """Returns True if an optimizer counts from 0 again at a step.

    Before its first update torch's has no counter, and none is recorded.
    """
    following = range(number, min(number + 2, len(ported)))
    counts = [int(ported.raw(n)["optimizer_step"]) for n in following]
    return counts[0] == 0 or counts[1:] == [1]

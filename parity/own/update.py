"""The updates of a recording against those of a port's optimizer, and nothing else."""

from collections.abc import Iterator

from parity.judging.measure import Measurement
from parity.judging.rounds import THOROUGH, Rounds
from parity.judging.tensors import judge_update
from parity.own.port import Port
from parity.own.replay import PortReplay


def judge_updates(port: Port, threshold: float) -> Iterator[Measurement]:
    """Yields the measurements of every update, from the first step on."""
    feed = port.feed()
    ported = port.ported
    for number in range(len(ported)):
        if feed is None or ported.raw(number)["skipped"]:
            continue
        replay = PortReplay(ported, number, port.objective, feed)
        inputs = replay.inputs(number)
        rounds = Rounds(THOROUGH, threshold)
        yield from judge_update(replay, number, ported.read(number), inputs, rounds)
        feed.advance(ported.leaves(number), ported.gradients(number))

"""Judges a recording of anybody's torch program by anybody's JAX port of it."""

from collections.abc import Iterator

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from parity.judging.measure import Measurement
from parity.judging.recording import Judgement
from parity.judging.rounds import THOROUGH, Rounds, close_below
from parity.judging.tensors import (
    judge_gradients,
    judge_norm,
    judge_skipped,
    judge_update,
)
from parity.judging.verdict import Verdict, judge_measurements
from parity.noise import Tensors
from parity.own import equalities
from parity.own.causes.explain import explain
from parity.own.emptiness import refuse_empty
from parity.own.equalities import LossScaleRules
from parity.own.optax_feed import OptaxFeed
from parity.own.port import Port
from parity.own.recorded_step import recorded_step
from parity.own.replay import PortReplay
from parity.own.shown import refuse_unshown
from parity.own.skips import refuse_skipped

BROKE_DOWN = "the training itself broke down; record fewer steps or mend it"


def judge_port(port: Port, threshold: float) -> tuple[list[Measurement], Verdict]:
    """Returns the measurements of every step, and the verdict that they amount to.

    Raises:
      UserError: nothing was learned, or nothing could have been found.
    """
    feed = port.feed()
    rules = LossScaleRules(port.ported.meta)
    measurements: list[Measurement] = []
    for number in range(len(port.ported)):
        measurements += equal_to_the_bit(port, number, rules)
        rounds = Rounds(THOROUGH, threshold, close_below(measurements, threshold))
        measurements += measured(port, number, feed, rounds)
        if feed and not port.ported.raw(number)["skipped"]:
            feed.advance(port.ported.leaves(number), port.ported.gradients(number))
    steps = len(port.ported)
    if all(m.z <= threshold for m in measurements):
        refuse_skipped(port)
    verdict = judge_measurements(measurements, steps, threshold, port.order)
    refuse_empty(measurements, verdict, port.order)
    return measurements, verdict


def equal_to_the_bit(
    port: Port, number: int, rules: LossScaleRules
) -> Iterator[Measurement]:
    """Yields the equalities of one step."""
    step = port.ported.raw(number)
    if number:
        previous = port.ported.raw(number - 1)
        yield from equalities.state_kept(number, step, previous)
        yield from equalities.update_counted(number, step, previous)
    yield from equalities.weights_read(number, step)
    yield from rules.judge(number, step)


def measured(
    port: Port, number: int, feed: OptaxFeed | None, rounds: Rounds
) -> Iterator[Measurement]:
    """Yields the measured tensors of one step."""
    ported = port.ported
    raw = ported.raw(number)
    _refuse_broken_state(number, raw)
    replay = PortReplay(ported, number, port.objective, feed, port.activations(number))
    inputs = replay.inputs(number)
    step = recorded_step(port, number, inputs.scale)
    replayed = replay.gradients(inputs, replay.compute)
    _refuse_broken_loss(number, step, replayed)
    for m in judge_gradients(replay, number, step, inputs, replayed, rounds):
        # The recorded norm is that of torch's gradients, not of the port's.
        is_norm = m.quantity == "grad_norm"
        yield judge_norm(number, raw, rounds.threshold) if is_norm else m
    if step["skipped"]:
        yield from judge_skipped(number, raw)
    elif replay.has_update:
        yield from judge_update(replay, number, step, inputs, rounds)


def _refuse_broken_state(number: int, raw: Tensors) -> None:
    """Nothing can be computed from weights that are no numbers."""
    for name, array in select(raw, "params").items():
        if not np.isfinite(array).all():
            raise UserError(
                f"cannot judge: step {number} of the recording begins with "
                f"params/{name} that is not finite: {BROKE_DOWN}"
            )


def _refuse_broken_loss(number: int, step: Tensors, replayed: Tensors) -> None:
    """A loss that is no number on either side says nothing about the port."""
    losses = (step["loss"], replayed["loss"])
    if not step["skipped"] and not any(np.isfinite(loss) for loss in losses):
        raise UserError(
            f"cannot judge: the loss of step {number} is {float(step['loss'])} in the "
            f"recording and in the port: {BROKE_DOWN}"
        )


def judgement(port: Port, threshold: float) -> Judgement:
    """Returns the whole judgement of a port."""
    measurements, verdict = judge_port(port, threshold)
    if verdict.is_parity:
        return Judgement(measurements, verdict, port.order)
    refuse_unshown(port, measurements, threshold)
    explanations = explain(port, measurements, threshold)
    return Judgement(measurements, verdict, port.order, explanations)

"""Judges a recording of anybody's torch program by anybody's JAX port of it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, grad_norm, select
from parity.judging.measure import Measurement, measure
from parity.judging.recording import Judgement
from parity.judging.rounds import THOROUGH, Rounds
from parity.judging.tensors import judge_gradients, judge_skipped, judge_update
from parity.judging.verdict import Verdict, judge_measurements
from parity.noise import FLOAT32, Tensors
from parity.own import equalities, networks, tree
from parity.own.emptiness import refuse_empty
from parity.own.equalities import LossScaleRules
from parity.own.layers import Pairs, pair
from parity.own.optax_feed import OptaxFeed
from parity.own.passes import Objective
from parity.own.recording import Ported
from parity.own.replay import COMPUTE, PortReplay
from parity.own.state_dict import Converted, convert_with


class Port:
    """A port laid beside a recording: all that a judgement of its steps rests on.

    Args:
      trace: recording in torch's names.
      model: flax.linen or flax.nnx module, or apply(params, *inputs).
      loss: loss(outputs, *inputs); None if the model returns it.
      optimizer: optax transformation; None if updates are not to be judged.
      convert: torch's state_dict -> the model's parameter tree.

    Attributes:
      ported: the recording by the port's names.
      objective: loss and gradients of the port.
      optimizer: as given.
      converted: where each leaf of the port comes from.
      pairs: modules of both sides.

    Raises:
      UserError: an argument does not fit the recording.
    """

    def __init__(
        self,
        trace: Reader,
        model: Any,
        loss: Callable | None,
        optimizer: Any,
        convert: Callable[[Any], Any],
    ):
        _check(trace)
        ties = trace.meta.get("ties", {})
        self.converted: Converted = convert_with(convert, trace.read(0), ties)
        self.ported = Ported(trace, self.converted)
        network = networks.wrap(model, self.converted.structure)
        self.objective = Objective(network, loss, self.ported.trained)
        self.optimizer = optimizer
        self.pairs: Pairs = pair(network, self.converted, self.ported.parameters)
        replay = PortReplay(self.ported, 0, self.objective, None)
        shapes = replay.shapes(replay.inputs(0))
        # In the order in which the port's modules end.
        recorded = self.ported.activations(0, shapes, self.pairs)
        self.modules = [name for name in shapes[0] if name in recorded]

    def feed(self) -> OptaxFeed | None:
        """Returns the optimizer before the first step."""
        if self.optimizer is None:
            return None
        structure = tree.only(self.converted.structure, self.ported.parameters)
        return OptaxFeed(self.optimizer, structure, self.ported.leaves(0))

    @property
    def order(self) -> list[str]:
        """Names of modules and gradients in the order in which a step computes them."""
        weights = self.converted.weights
        places = {name: place for place, name in enumerate(weights.sources)}

        def last_place(leaf: str) -> int:
            return max(places[name] for name in weights.needs[leaf])

        backward = sorted(self.ported.trained, key=last_place, reverse=True)
        return [*self.modules, *backward]


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
        measurements += measured(port, number, feed, threshold)
        if feed and not port.ported.raw(number)["skipped"]:
            feed.advance(port.ported.leaves(number), port.ported.gradients(number))
    steps = len(port.ported)
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
    port: Port, number: int, feed: OptaxFeed | None, threshold: float
) -> Iterator[Measurement]:
    """Yields the measured tensors of one step."""
    ported = port.ported
    replay = PortReplay(ported, number, port.objective, feed, port.modules)
    inputs = replay.inputs(number)
    step = ported.read(number) | {"loss_scale": inputs.scale}
    step |= _activations(port, number)
    # The norm is that of torch's gradients, which a converter may scale or repeat.
    step["grad_norm"] = grad_norm(select(step, "grads").values(), bool(step["skipped"]))
    replayed = replay.gradients(inputs, replay.compute)
    rounds = Rounds(THOROUGH, threshold)
    for m in judge_gradients(replay, number, step, inputs, replayed, rounds):
        yield _norm_of_torch(ported.raw(number), m, threshold)
    if step["skipped"]:
        yield from judge_skipped(number, ported.raw(number))
    elif replay.has_update:
        yield from judge_update(replay, number, step, inputs, rounds)


def _activations(port: Port, number: int) -> Tensors:
    replay = PortReplay(port.ported, number, port.objective, None)
    shapes = replay.shapes(replay.inputs(number))
    found = port.ported.activations(number, shapes, port.pairs)
    return {f"activations/{name}": array for name, array in found.items()}


def _norm_of_torch(raw: Tensors, m: Measurement, threshold: float) -> Measurement:
    """Measures the recorded norm against that of the recorded gradients."""
    if m.quantity != "grad_norm":
        return m
    norm = np.float64(grad_norm(select(raw, "grads").values(), skipped=False))
    return measure(
        m.step, m.quantity, "", raw["grad_norm"], norm, 0.0, FLOAT32, 1.0, threshold
    )


def _check(trace: Reader) -> None:
    if trace.meta.get("names", "flax") != "torch":
        raise UserError(
            "cannot judge: the trace has flax's names; own.judge takes what own.record "
            "wrote, own.judge_step takes this"
        )
    if trace.meta["precision"] not in COMPUTE:
        raise UserError(
            f"cannot judge: meta.json: precision {trace.meta['precision']!r} is none "
            f"of {', '.join(COMPUTE)}"
        )
    if not len(trace):
        raise UserError(
            "cannot judge: the trace has no whole step; call own.record around the "
            "training loop"
        )
    if trace.meta.get("unreachable_dropout"):
        where = ", ".join(trace.meta["unreachable_dropout"])
        raise UserError(
            f"cannot judge: torch drew dropout masks inside {where}, where they cannot "
            'be read; set its dropout to 0, or attn_implementation="eager"'
        )


def judgement(port: Port, threshold: float) -> Judgement:
    """Returns the whole judgement of a port."""
    measurements, verdict = judge_port(port, threshold)
    return Judgement(measurements, verdict, port.order)

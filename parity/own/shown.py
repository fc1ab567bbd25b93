"""Whether a recording shows what trained, or something else that its recorder read.

A trace is a public format, and others write it. Masters that are really the 16-bit
weights, zeros, or the values of another parameter would put the blame on training.
Asked only where a recording and a port part; what trained is then seen from the side:
by gradients, by the weights that were read, by the port.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import select
from parity.judging.cause import leaf_of
from parity.judging.measure import Measurement
from parity.noise import Tensors
from parity.own.causes.layer_trials import passes, replay_of
from parity.own.port import Port
from parity.own.recording import Ported
from parity.quantities import GRADIENTS, UPDATE

MOST = 48
"""Pairs of parameters that are tried in each other's place."""
NEAR = 1e-3
"""Relative distance of a loss within which such a pair is tried to the end."""
MASTERS = "record the masters that the optimizer holds"


def refuse_unshown(
    port: Port, measurements: Sequence[Measurement], threshold: float
) -> None:
    """Raises UserError if a recording that diverged does not show what trained.

    Args:
      port: the port and its recording.
      measurements: of every step.
      threshold: largest z that passes.
    """
    failed = [m for m in measurements if m.z > threshold]
    for found in _reasons(port, measurements, failed, threshold):
        raise UserError(
            f"cannot judge: the recording does not show what trained: {found}"
        )


def _reasons(
    port: Port,
    measurements: Sequence[Measurement],
    failed: Sequence[Measurement],
    threshold: float,
) -> Iterator[str]:
    ported = port.ported
    steps = [ported.raw(number) for number in range(min(len(ported), 3))]
    held = ported.meta.get("trained", ())
    names = [n for n in held if {f"params/{n}", f"updated/{n}"} <= steps[0].keys()]
    of_gradients = any(m.definition.part == GRADIENTS for m in failed)
    yield from zeros(steps, names, of_gradients)
    yield from identical(steps, names, ported.meta.get("ties", {}))
    yield from misplaced(steps, names)
    wrong = {leaf_of(m) for m in failed if m.definition.part == UPDATE}
    origins = port.converted.weights.origins
    suspects = set().union(*(origins.get(leaf, set()) for leaf in wrong))
    if not _trains_in_16_bits(ported):
        yield from in_16_bits(steps, [n for n in names if n in suspects])
    if of_gradients:
        yield from _exchanged(port, names, measurements, threshold)


def zeros(
    steps: Sequence[Tensors], names: Sequence[str], gradients_fail: bool
) -> Iterator[str]:
    """Yields what is zero at every step, though it cannot be.

    Args:
      steps: recorded, by torch's names.
      names: of the trained parameters.
      gradients_fail: the port has other gradients at these parameters.
    """
    for name in names:
        if not _learns(steps, name):
            continue
        is_zero = {
            kind: not any(step[f"{kind}/{name}"].any() for step in steps)
            for kind in ("params", "updated")
        }
        # A bias begins at zero: what its first step alone starts from tells nothing.
        is_zero["params"] &= len(steps) > 1 or is_zero["updated"]
        read = any(step.get(f"forward/{name}", np.zeros(1)).any() for step in steps)
        # A loop may set a weight to zero after each update; gradients then agree.
        only_after = is_zero["updated"] and not is_zero["params"]
        if any(is_zero.values()) and (read or gradients_fail or only_after):
            kind = "params" if is_zero["params"] else "updated"
            yield (
                f"{kind}/{name} is zero at every step, though its gradient is not; "
                f"{MASTERS}"
            )


def identical(
    steps: Sequence[Tensors], names: Sequence[str], ties: dict[str, str]
) -> Iterator[str]:
    """Yields pairs that stay equal to the bit under different gradients."""
    for step in steps:
        held: dict[bytes, str] = {}
        for name in names:
            array = step[f"updated/{name}"]
            if step["skipped"] or not np.ptp(array) or name in ties:
                continue
            other = held.setdefault(array.tobytes(), name)
            if other != name and _have_other_gradients(step, name, other):
                yield (
                    f"updated/{name} holds the values of updated/{other}, to the bit, "
                    f"though their gradients differ; {MASTERS}"
                )


def misplaced(steps: Sequence[Tensors], names: Sequence[str]) -> Iterator[str]:
    """Yields masters in the place of others, by the 16-bit weights that were read."""
    for step in steps:
        for name in names:
            read = step.get(f"forward/{name}")
            if read is None or not np.ptp(read) or _rounds_to(step, name, read):
                continue
            of = next((other for other in names if _rounds_to(step, other, read)), None)
            if of:
                yield (
                    f"params/{of} holds the values of {name}: rounded they are what "
                    f"the forward pass read as {name}; {MASTERS}"
                )


def _rounds_to(step: Tensors, name: str, read: np.ndarray) -> bool:
    master = step[f"params/{name}"]
    same_shape = master.shape == read.shape
    return same_shape and np.array_equal(master.astype(read.dtype), read)


def in_16_bits(steps: Sequence[Tensors], names: Sequence[str]) -> Iterator[str]:
    """Yields masters that no update ever takes off the grid of their 16-bit copies."""
    for name in names:
        copies = [step.get(f"forward/{name}") for step in steps]
        if copies[0] is None or not _learns(steps, name):
            continue
        format = copies[0].dtype
        if all(_is_in(step[f"updated/{name}"], format) for step in steps):
            yield (
                f"updated/{name} is in {format.name} after every update, though the "
                f"masters are float32; {MASTERS}, not the weights that are read"
            )


def _is_in(array: np.ndarray, format: np.dtype) -> bool:
    return np.array_equal(array, array.astype(format).astype(array.dtype))


def _learns(steps: Sequence[Tensors], name: str) -> bool:
    grads = [step.get(f"grads/{name}") for step in steps if not step["skipped"]]
    return any(grad is not None and grad.any() for grad in grads)


def _have_other_gradients(step: Tensors, name: str, other: str) -> bool:
    grads = select(step, "grads")
    if name not in grads or other not in grads:
        return False
    return not np.array_equal(grads[name], grads[other])


def _trains_in_16_bits(ported: Ported) -> bool:
    """Returns True if DeepSpeed was told to do without float32 masters."""
    config = ported.meta.get("config") or {}
    return any(
        value
        for section in (config.get("fp16"), config.get("bf16"))
        for key, value in (section or {}).items()
        if key.endswith("master_weights_and_grads")
    )


class _Exchanged(Ported):
    """A recording with the masters of two parameters in each other's place."""

    def exchange(self, one: str, other: str) -> None:
        """Exchanges two parameters in every step."""
        plain = self.raw

        def raw(number: int) -> Tensors:
            step = dict(plain(number))
            for kind in ("params", "updated"):
                a, b = f"{kind}/{one}", f"{kind}/{other}"
                step[a], step[b] = step[b], step[a]
            return step

        self.raw = raw


def _exchanged(
    port: Port,
    names: Sequence[str],
    measurements: Sequence[Measurement],
    threshold: float,
) -> Iterator[str]:
    """Yields a pair in whose places the first diverging step passes."""
    step = port.ported.raw(0)
    number = min(
        m.step
        for m in measurements
        if m.z > threshold and m.definition.part == GRADIENTS
    )
    pairs = (
        (a, b)
        for a, b in itertools.combinations(names, 2)
        if step[f"params/{a}"].shape == step[f"params/{b}"].shape
        and not np.array_equal(step[f"params/{a}"], step[f"params/{b}"])
    )
    for a, b in itertools.islice(pairs, MOST):
        other = _Exchanged(port.trace, port.converted)
        other.exchange(a, b)
        replay = replay_of(port, number, ported=other)
        inputs = replay.inputs(number)
        loss = float(replay.gradients(inputs, replay.compute)["loss"])
        is_near = np.isclose(loss, float(port.ported.raw(number)["loss"]), rtol=NEAR)
        if is_near and passes(port, number, replay, measurements, threshold):
            yield (
                f"params/{a} and params/{b} hold each other's values: the port has "
                f"the recorded loss and gradients once they are exchanged; {MASTERS}"
            )

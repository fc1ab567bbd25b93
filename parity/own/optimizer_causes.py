"""What the recorded optimizer did, beside what the port's optimizer does."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.cause import cause
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.judging.optimizer_difference import explain as explain_differences
from parity.judging.optimizer_difference import find
from parity.measured import history
from parity.measured.difference import Difference
from parity.measured.fit_types import Fit
from parity.noise import FLOAT64
from parity.own.equalities import LossScaleRules
from parity.own.port import Port
from parity.quantities import RULES


def explain(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns one explanation of all differences that were measured; perhaps none.

    Args:
      port: the port and its recording.
      failed: measurements that failed.
    """
    recorded_steps = [_recorded(port, number) for number in _learned(port)]
    if port.feed() is None or len(recorded_steps) < 2:
        return []
    found = find(recorded_steps, list(_own(port, recorded_steps)), failed)

    def name(difference: Difference) -> str:
        return known_name(port, difference, found.recorded)

    return explain_differences(found, failed, name, REFERENCES)


def read_before_masters(failed: Sequence[Measurement]) -> Explanation:
    """Returns the explanation of a first pass that read other weights (D2)."""
    text = (
        "an update of zero gradients before training moved the masters, and the first "
        "forward pass read the weights from before it"
    )
    reference = REFERENCES["init_step_counted"]
    return cause(["init_step_counted"], text, reference, RULES, failed, True)


def known_name(port: Port, difference: Difference, recorded: Mapping[str, Fit]) -> str:
    """Returns the catalogue's name of a difference, or its kind."""
    meta = port.ported.meta
    kind = difference.kind
    if kind == "gradient factor" and _are_divided_by_the_scale(port, recorded):
        return "loss_not_scaled"
    is_half = kind == "gradient factor" and np.isclose(
        difference.recorded, 0.5, rtol=1e-3
    )
    if is_half and _grows_somewhere(port):
        return "growth_step_halved"
    if kind == "bias-correction count" and meta.get("zero_stage") == 0:
        return "bias_correction_late"
    return kind.replace(" ", "_")


REFERENCES = {
    "loss_not_scaled": "MISMATCHES D1; DeepSpeed pull request 8393",
    "bias_correction_late": "MISMATCHES D2",
    "init_step_counted": "MISMATCHES D2; DeepSpeed runtime/fp16/fused_optimizer.py",
    "growth_step_halved": "MISMATCHES D3; DeepSpeed runtime/fp16/loss_scaler.py",
    "float32_betas": "MISMATCHES D6",
}
"""Known difference -> where it is documented."""


def _are_divided_by_the_scale(port: Port, recorded: Mapping[str, Fit]) -> bool:
    """Returns True if the optimizer saw gradients over a scale that was not there."""
    meta = port.ported.meta
    if meta.get("zero_stage") != 0 or meta["precision"] != "fp16":
        return False
    scale = float(port.ported.raw(0)["loss_scale"])
    seen = [f.value for one in recorded.values() for f in one.factors if f.is_seen]
    return bool(seen) and np.allclose(np.array(seen) * scale, 1, rtol=1e-2)


def _grows_somewhere(port: Port) -> bool:
    rules = LossScaleRules(port.ported.meta)
    for number in range(len(port.ported)):
        step = port.ported.raw(number)
        if rules.grows(step):
            return True
        list(rules.judge(number, step))
    return False


def _learned(port: Port) -> list[int]:
    steps = range(len(port.ported))
    return [number for number in steps if not port.ported.raw(number)["skipped"]]


def _recorded(port: Port, number: int) -> history.Step:
    step = port.ported.read(number)
    leaves = set(port.ported.trained)
    return history.Step(
        count=number,
        params=_of(leaves, select(step, "params")),
        grads=_of(leaves, select(step, "grads")),
        updated=_of(leaves, select(step, "updated")),
        moments=select(step, "moments"),
        updated_moments=select(step, "updated_moments"),
    )


def _own(port: Port, steps: Sequence[history.Step]) -> Iterator[history.Step]:
    """Yields what the port's optimizer makes of the same parameters and gradients."""
    feed = port.feed()
    assert feed, "called with an optimizer"
    before: Mapping[str, np.ndarray] = {}
    for step in steps:
        leaves = port.ported.leaves(step.count)
        grads = port.ported.gradients(step.count)
        outputs = feed.update(leaves, grads, FLOAT64)
        after = select(outputs, "updated_moments")
        updated = _of(set(step.params), select(outputs, "updated"))
        yield step._replace(updated=updated, moments=before, updated_moments=after)
        feed.advance(leaves, grads)
        before = after


def _of(leaves: set[str], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name in leaves}

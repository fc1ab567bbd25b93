"""What the recorded optimizer did, beside what the port's optimizer does."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxnn.experiment.files.trace import select
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.judging.optimizer_difference import Found, Said, find
from parity.judging.optimizer_difference import explain as explain_differences
from parity.measured import fit, history
from parity.measured.compare_steps import SGD_KIND
from parity.measured.difference import Difference
from parity.noise import FLOAT64
from parity.own.causes import factor_names, rates
from parity.own.port import Port


def explain(port: Port, failed: Sequence[Measurement]) -> list[Explanation]:
    """Returns one explanation of all differences that were measured; perhaps none.

    Args:
      port: the port and its recording.
      failed: measurements that failed.
    """
    recorded_steps = [_recorded(port, number) for number in port.ported.learned]
    if port.feed() is None or len(recorded_steps) < 2:
        return []
    found = find(recorded_steps, list(_own(port, recorded_steps)), failed)
    of_scale = factor_names.names_of(port, found.recorded, found.own)

    def say(difference: Difference) -> Said:
        rescheduled = _of_schedule(port, difference, found)
        if rescheduled:
            return rescheduled
        name = known_name(port, difference)
        is_factor = name == "gradient_factor"
        names = of_scale or [name] if is_factor else [name]
        return Said(names, difference.sentence)

    return explain_differences(found, failed, say, REFERENCES)


def known_name(port: Port, difference: Difference) -> str:
    """Returns the catalogue's name of a difference, or its kind."""
    kind = difference.kind
    if kind == "clip norm" and _is_of_scaled(port, difference):
        return "clip_before_unscale"
    if kind == "bias-correction count" and port.ported.meta.get("zero_stage") == 0:
        return "bias_correction_late"
    return kind.replace(" ", "_")


REFERENCES = {
    "loss_not_scaled": "MISMATCHES D1; DeepSpeed pull request 8393",
    "bias_correction_late": "MISMATCHES D2",
    "growth_step_halved": "MISMATCHES D3; DeepSpeed runtime/fp16/loss_scaler.py",
    "float32_betas": "MISMATCHES D6",
    "clip_eps": "MISMATCHES D7; optax.clip_by_global_norm",
    "clip_missing": "ds_config gradient_clipping 0",
    "clip_by_tensor": "torch clip_grad_norm_ called per layer",
    "clip_by_value": "torch clip_grad_value_, optax.clip",
    "clip_normalizes": "max_norm / norm without the minimum with 1",
    "clip_before_unscale": "clip_grad_norm_ before GradScaler.unscale_",
    "learning_rate_early": "MISMATCHES D16",
    "learning_rate_late": "MISMATCHES D16",
    "schedule_counts_skipped": "MISMATCHES D9",
    "schedule_missing": "a scheduler that is never stepped",
    "schedule_by_ranks": "a scheduler that every process steps, as Accelerate's",
    "schedule_by_parts": "a scheduler that is stepped at each microbatch",
}
"""Known difference -> where it is documented."""


def _is_of_scaled(port: Port, difference: Difference) -> bool:
    """Returns True if the bound is one's own, divided by a loss scale."""
    scale = float(port.ported.raw(0)["loss_scale"])
    bound = difference.recorded * scale
    return scale != 1 and bool(np.isclose(bound, difference.own, rtol=1e-3))


def _of_schedule(port: Port, difference: Difference, found: Found) -> Said | None:
    """Returns what is said of rates that follow a schedule in another way."""
    if difference.kind not in ("rate", SGD_KIND):
        return None
    recorded, steps = found.recorded, found.steps
    meta = port.ported.meta
    numbers = [step.count for step in steps]
    leaf = max(difference.tensors, key=lambda name: recorded[name].size)
    ways = list(rates.counts(meta["world_size"], meta.get("accumulation_steps") or 1))
    length = rates.longest(len(steps) - 1, numbers[-1], ways)
    longer = list(itertools.islice(_on_and_on(steps), length))
    own = fit.measure([_only(step, leaf) for step in _own(port, longer)])[leaf]
    if len(own.rates) != length or recorded[leaf].counts != tuple(numbers):
        return None
    explained = rates.explained(recorded[leaf], numbers, own.rates, ways)
    if explained is None:
        return None
    name, text = explained
    _, _, where = difference.sentence.rpartition(" (")
    return Said([name], f"{text} ({where}")


def _on_and_on(steps: Sequence[history.Step]) -> Iterator[history.Step]:
    """Yields the steps, and then their tensors again as those of later steps."""
    for place in itertools.count():
        step = steps[place % len(steps)]
        more = max(0, place - len(steps) + 1)
        yield step if not more else step._replace(count=steps[-1].count + more)


def _only(step: history.Step, leaf: str) -> history.Step:
    return step._replace(
        params={leaf: step.params[leaf]},
        grads={leaf: step.grads[leaf]},
        updated={leaf: step.updated[leaf]},
    )


def _recorded(port: Port, number: int) -> history.Step:
    step = history.recorded_step(number, port.ported.read(number))
    leaves = set(port.ported.trained)
    return step._replace(
        params=_of(leaves, step.params),
        grads=_of(leaves, port.ported.gradients(number)),
        updated=_of(leaves, step.updated),
    )


def _own(port: Port, steps: Sequence[history.Step]) -> Iterator[history.Step]:
    """Yields what the port's optimizer makes of the same parameters and gradients."""
    feed = port.feed()
    assert feed, "called with an optimizer"
    before: Mapping[str, np.ndarray] = {}
    numbers = [step.count for step in steps if step.count < len(port.ported)]
    for place, step in enumerate(steps):
        # Steps beyond the recorded ones have the tensors of those.
        number = numbers[place % len(numbers)]
        leaves = port.ported.leaves(number)
        grads = port.ported.gradients(number)
        outputs = feed.update(leaves, grads, FLOAT64)
        after = select(outputs, "updated_moments")
        updated = _of(set(step.params), select(outputs, "updated"))
        yield step._replace(updated=updated, moments=before, updated_moments=after)
        feed.advance(leaves, grads)
        before = after


def _of(leaves: set[str], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name in leaves}

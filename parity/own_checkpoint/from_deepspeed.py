"""DeepSpeed's checkpoint as a tree of a port's parameters and optax state."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.files.handoff import SCALARS
from jaxnn.experiment.files.trace import select, unflatten
from parity.own_checkpoint import layout, optax_state
from parity.own_checkpoint.optax_state import Slot
from parity.own_checkpoint.plan import SCALED, Plan
from parity.own_checkpoint.torch_half import Held

Moments = Mapping[str, Mapping[str, np.ndarray]]
START = "as at the start"


def tree_of(plan: Plan, held: Held, moments: Moments) -> dict[str, Any]:
    """Returns the tree that parity/own_checkpoint/__init__.py describes.

    Args:
      plan: the port beside the checkpoint.
      held: what the checkpoint holds.
      moments: of `moments_of`.
    """
    tree = plan.layout.structure.unflatten(plan.leaves)
    whole = dict(tree) if plan.has_own_params else {layout.FLAX_PARAMS: tree}
    if plan.slots or plan.found.unmatched:
        arrays = _filled(plan, held, moments)
        whole["opt_state"] = optax_state.renamed(plan.state, arrays)
    left = {
        key: unflatten(
            {n: a for n, a in leaves.items() if n in _left(plan, key, leaves)}
        )
        for key, leaves in moments.items()
    }
    if any(left.values()):
        whole["moments"] = {key: tree for key, tree in left.items() if tree}
    counters = counters_of(held)
    scalars = {n: np.asarray(counters[n], dtype) for n, dtype in SCALARS.items()}
    return whole | scalars


def moments_of(plan: Plan, held: Held) -> dict[str, dict[str, np.ndarray]]:
    """Returns {torch's key: {leaf: moment}}."""
    return {
        key: _own(plan, select(held.arrays, f"moments/{key}"))
        for key in held.about["keys"]
    }


def counters_of(held: Held) -> dict[str, Any]:
    """Returns the counters; an optimizer that counts nothing has made all updates."""
    counters = dict(held.about["counters"])
    if counters["optimizer_step"] is None:
        counters["optimizer_step"] = counters["updates"]
    return counters


def notes(plan: Plan, held: Held, moments: Moments) -> Iterator[str]:
    """Yields what was not converted, or has a meaning of its own, a line each."""
    for where in plan.found.unmatched:
        yield f"opt_state/{where} has no counterpart in the checkpoint; left {START}"
    for key, leaves in moments.items():
        left = _left(plan, key, leaves)
        if left:
            yield (
                f"{key}: opt_state has no place for it"
                + (f" ({_listed(left)})" if len(left) < len(leaves) else "")
                + f"; kept as moments/{key}"
            )
    yield from _empty(plan, held, moments)
    for key in held.about["other_keys"]:
        yield f"{key}: torch keeps it in another shape than parameters; not converted"
    yield from _about_steps(plan, held)
    yield from _about_arrays(plan)
    yield from _about_momentum(plan, held)


def _own(plan: Plan, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a moment by leaf; leaves that are no parameters have none."""
    leaves = layout.moved_moments(plan.layout.weights, arrays)
    origins = plan.layout.weights.origins
    return {name: leaf for name, leaf in leaves.items() if origins[name]}


def _filled(plan: Plan, held: Held, moments: Moments) -> dict[str, np.ndarray]:
    """Returns {path: array} of the state, filled as far as it can be."""
    arrays = optax_state.named(plan.state)
    counters = counters_of(held)
    counters["skipped"] = counters["step"] - counters["updates"]
    for path, slot in plan.slots.items():
        value = _value(slot, moments, counters, held)
        if value is not None:
            arrays[path] = np.asarray(value, arrays[path].dtype)
    return arrays


def _value(
    slot: Slot, moments: Moments, counters: Mapping[str, Any], held: Held
) -> Any:
    """Returns what belongs into a slot; None if the checkpoint does not say."""
    if slot.kind == "moment":
        return moments[slot.key].get(slot.leaf)
    return counters[slot.key] if slot.kind == "counter" else rate_of(held)


def filled(plan: Plan, moments: Moments) -> int:
    """Returns how many arrays of the state the checkpoint fills."""
    return sum(
        slot.kind != "moment" or slot.leaf in moments[slot.key]
        for slot in plan.slots.values()
    )


def rate_of(held: Held) -> float | None:
    """Returns the rate of all groups; None if they differ."""
    rates = {group.get("lr") for group in held.about["groups"]}
    return rates.pop() if len(rates) == 1 else None


def _left(plan: Plan, key: str, leaves: Mapping[str, Any]) -> list[str]:
    """Returns the leaves whose moment no part of the state has taken."""
    taken = {s.leaf for s in plan.slots.values() if s.kind == "moment" and s.key == key}
    return [leaf for leaf in leaves if leaf not in taken]


def _empty(plan: Plan, held: Held, moments: Moments) -> Iterator[str]:
    """Says which leaves have a place and no moment."""
    lacking: dict[str, None] = {}
    for slot in plan.slots.values():
        if slot.kind == "moment" and slot.leaf not in moments[slot.key]:
            lacking[slot.leaf] = None
    frozen = set(held.about["frozen"])
    for leaf in lacking:
        still = plan.layout.weights.origins[leaf] <= frozen
        why = "is frozen in torch" if still else "had no gradient in torch yet"
        hint = "; mask it in optax" if still else ""
        yield f"{leaf} {why}, so its moments are left {START}{hint}"


def _about_steps(plan: Plan, held: Held) -> Iterator[str]:
    counters, steps = held.about["counters"], held.about["group_steps"]
    counted, updates = counters["optimizer_step"], counters["updates"]
    if counted is not None and counted != updates:
        is_known = held.about["stage"] == 0 and counted == updates + 1
        yield (
            f"torch's optimizer counts {counted} updates of {updates}, and so does "
            "Adam's count; schedules count what was applied"
            + (
                ": DeepSpeed without ZeRO makes an update of zero gradients before "
                "training (MISMATCHES D2)"
                if is_known
                else ""
            )
        )
    if held.about["stage"] == 0 and "float16" in held.about["dtype"].split("/"):
        yield (
            "DeepSpeed's FP16 without ZeRO divides gradients by a loss scale that may "
            "never have multiplied them (MISMATCHES D1); moments are as they are"
        )
    if len(set(steps)) > 1:
        yield (
            f"groups of torch's optimizer count {_listed(map(str, steps))} updates; "
            f"optax counts once, {counted}"
        )
    overflowed = counters["clean_steps"] == 0 and counters["step"] > updates
    if overflowed and any(
        "notfinite" in path for path in optax_state.named(plan.state)
    ):
        yield (
            "the last step overflowed, and the checkpoint does not say how many before "
            f"it; notfinite_count is left {START}"
        )
    if any(s.kind == "rate" for s in plan.slots.values()) and rate_of(held) is None:
        yield f"groups of torch's optimizer differ in lr; learning_rate is left {START}"


def _about_arrays(plan: Plan) -> Iterator[str]:
    arrays = optax_state.named(plan.state)
    rounded = [
        path
        for path, slot in plan.slots.items()
        if slot.kind == "moment" and arrays[path].dtype != np.float32
    ]
    if rounded:
        kind = arrays[rounded[0]].dtype
        yield f"opt_state keeps {len(rounded)} moments in {kind}; they were rounded"


def _about_momentum(plan: Plan, held: Held) -> Iterator[str]:
    """Says why RMSprop's momentum stays out of optax.rmsprop's state."""
    keys = held.about["keys"]
    taken = any(slot.key == "momentum_buffer" for slot in plan.slots.values())
    traced = any("TraceState" in where for where in plan.found.unmatched)
    if SCALED in keys and "momentum_buffer" in keys and traced and not taken:
        yield (
            "optax.rmsprop keeps momentum times the learning rate, torch without; "
            "optax.chain(scale_by_rms(...), trace(...), scale_by_learning_rate(...)) "
            "keeps it as torch does"
        )


def _listed(names: Any, most: int = 4) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

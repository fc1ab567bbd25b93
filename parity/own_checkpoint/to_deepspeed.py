"""A tree of parameters and optax state as values for DeepSpeed's checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.handoff import SCALARS
from jaxnn.experiment.files.trace import select
from parity.own_checkpoint import layout, optax_state
from parity.own_checkpoint.from_deepspeed import counters_of, rate_of
from parity.own_checkpoint.plan import Plan
from parity.own_checkpoint.torch_half import Held

Arrays = Mapping[str, np.ndarray]
OPT_STATE = "opt_state"


class Values(NamedTuple):
    """What is put into a checkpoint.

    Attributes:
      arrays: by the names of `Held`.
      counters: all of them.
      rate: learning rate of all groups; None: as it is.
      notes: what the user should know, a line each.
    """

    arrays: dict[str, np.ndarray]
    counters: dict[str, Any]
    rate: float | None
    notes: list[str]


def values_of(plan: Plan, held: Held, given: Arrays) -> Values:
    """Returns what a tree says about a checkpoint.

    Args:
      plan: the port beside the checkpoint.
      held: what the checkpoint holds.
      given: the tree, {path: array}.

    Raises:
      UserError: something is missing, of another shape, or at odds with itself.
    """
    leaves = _leaves(plan, given)
    state = _state(plan, given)
    arrays = _torch_params(plan, held, leaves)
    for key, moments in _moments(plan, held, given, state).items():
        back = plan.layout.weights.invert(moments, "delta")
        for name, array in back.items():
            arrays[f"moments/{key}/{name}"] = np.asarray(array, np.float32)
    counters = _counters(plan, held, given, state)
    # What is not there, torch's optimizer does not count.
    if held.about["counters"]["optimizer_step"] is None:
        counters["optimizer_step"] = None
    rate = _rate(plan, held, state)
    said = list(_notes(plan, held, given, leaves, counters))
    return Values(arrays, counters, rate, said)


def _leaves(plan: Plan, given: Arrays) -> dict[str, np.ndarray]:
    """Returns {leaf: array}; raises UserError unless they are the port's."""
    wanted = {plan.path(n): (n, a.shape) for n, a in plan.leaves.items()}
    _require(given, {path: shape for path, (_, shape) in wanted.items()})
    return {leaf: given[path] for path, (leaf, _) in wanted.items()}


def _state(plan: Plan, given: Arrays) -> dict[str, np.ndarray]:
    """Returns {path: array} of the optax state; {} if there is none."""
    found = select(given, OPT_STATE)
    if not found:
        return {}
    wanted = optax_state.named(plan.state)
    _require(given, {f"{OPT_STATE}/{n}": np.shape(a) for n, a in wanted.items()})
    extra = next((path for path in found if path not in wanted), None)
    if extra:
        raise UserError(
            f"--from: {OPT_STATE}/{extra} is not in the state of the port's optimizer; "
            "give the port that it was trained with"
        )
    return found


def _require(given: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> None:
    for path, shape in wanted.items():
        if path not in given:
            raise UserError(f"--from: {path} {shape} is missing; give the whole tree")
        if given[path].shape != shape:
            raise UserError(
                f"--from: {path} is {given[path].shape}, {shape} in the port's tree"
            )
        if not np.isfinite(given[path].astype(np.float64)).all():
            raise UserError(f"--from: {path} is not finite; take an earlier one")


def _torch_params(plan: Plan, held: Held, leaves: Arrays) -> dict[str, np.ndarray]:
    """Returns parameters and buffers by torch's names."""
    back = plan.layout.weights.invert(leaves, "value")
    found = {}
    for kind in ("params", "buffers"):
        for name in select(held.arrays, kind).keys() & back.keys():
            dtype = held.arrays[f"{kind}/{name}"].dtype
            found[f"{kind}/{name}"] = np.asarray(back[name], dtype)
    return found


def _moments(
    plan: Plan, held: Held, given: Arrays, state: Arrays
) -> dict[str, dict[str, np.ndarray]]:
    """Returns {torch's key: {leaf: moment}}, from the state and from beside it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key in held.about["keys"]:
        beside = select(given, f"moments/{key}")
        known = {n: a for n, a in beside.items() if n in plan.leaves}
        found[key] = known
    for path, slot in plan.slots.items():
        if slot.kind == "moment" and path in state:
            _join(found.setdefault(slot.key, {}), slot, path, state[path])
    return {key: leaves for key, leaves in found.items() if leaves}


def _join(
    leaves: dict[str, np.ndarray], slot: optax_state.Slot, path: str, array: np.ndarray
) -> None:
    array = np.asarray(array, np.float32)
    if slot.leaf in leaves and not np.array_equal(leaves[slot.leaf], array):
        raise UserError(
            f"--from: {OPT_STATE}/{path} is torch's {slot.key} of {slot.leaf}, and so "
            "is another array, which differs"
        )
    leaves[slot.leaf] = array


def _counters(plan: Plan, held: Held, given: Arrays, state: Arrays) -> dict[str, Any]:
    """Returns the counters: the tree's, moved on by what its optax state counts."""
    whole = given.keys() >= SCALARS.keys()
    base: dict[str, Any] = dict(counters_of(held))
    if whole:
        base |= {n: given[n].item() for n in SCALARS if not _equal(given[n], base[n])}
    counted: dict[str, Any] = optax_state.counted(plan.slots, state) if state else {}
    step = counted.get("optimizer_step", base["optimizer_step"])
    more = step - base["optimizer_step"]
    updates = counted.get("updates", base["updates"] + more)
    if "optimizer_step" not in counted:
        step += updates - base["updates"]
    skipped = base["step"] - base["updates"]
    batches = updates + counted.get("skipped", skipped)
    return base | {
        "step": batches,
        "updates": updates,
        "optimizer_step": step,
        "clean_steps": _clean(base, batches),
    }


def _equal(array: np.ndarray, number: float) -> bool:
    """Whether it is the number, which may have more digits than the array has."""
    return bool(array == np.asarray(number, array.dtype))


def _clean(base: Mapping[str, Any], step: int) -> int:
    """Steps since an overflow, if none was among those that were trained since."""
    moved = step - base["step"]
    scaled = base["clean_steps"] or base["loss_scale"] != 1
    return base["clean_steps"] + moved if scaled and moved > 0 else base["clean_steps"]


def _rate(plan: Plan, held: Held, state: Arrays) -> float | None:
    """Returns an injected rate that is not the checkpoint's."""
    before = rate_of(held)
    for path, slot in plan.slots.items():
        if slot.kind == "rate" and path in state:
            rate = state[path]
            if before is None or rate != np.asarray(before, rate.dtype):
                return float(rate)
    return None


def _notes(
    plan: Plan, held: Held, given: Arrays, leaves: Arrays, counters: Mapping[str, Any]
) -> Iterator[str]:
    if not select(given, OPT_STATE):
        yield f"no {OPT_STATE} in --from: moments stay as in --template"
    for where in plan.found.unmatched:
        yield f"{OPT_STATE}/{where} has no counterpart in --template; not written"
    for key in {path.split("/")[1] for path in given if path.startswith("moments/")}:
        if key not in held.about["keys"]:
            yield f"moments/{key} have no counterpart in --template; not written"
    if not given.keys() >= SCALARS.keys():
        yield (
            f"not all of {', '.join(SCALARS)} are in --from: they are the template's, "
            "moved on by what optax counts"
        )
    for leaf, first in layout.differing_ties(plan.layout.weights, leaves):
        yield (
            f"{leaf} and {first} hold one tensor of torch and differ; {first} was taken"
        )
    known = {plan.path(leaf) for leaf in plan.leaves} | SCALARS.keys()
    for path in given:
        beside = path.startswith((f"{OPT_STATE}/", "moments/"))
        if path not in known and not beside:
            yield f"{path} of --from is nothing that a checkpoint holds; left out"
    moved = counters["updates"] - held.about["counters"]["updates"]
    if moved and held.about["schedule"]:
        yield (
            f"the lr_scheduler was moved by {moved} updates; the next one still has "
            "the template's learning rate"
        )

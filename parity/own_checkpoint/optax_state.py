"""Which array of an optax state is which of torch's, told by its structure.

A state is a nest of tuples, named tuples and dicts. A part of it that has the names and
shapes of parameters is a moment; the type of the named tuple around it and the name of
its field say which. So masks, partitions, schedules and wrappers are found through.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.experiment.errors import UserError
from parity.own.tree import Structure

MOMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "MuonState": {"mu": ("momentum_buffer",)},
    "ScaleByAdaDeltaState": {"e_g": ("square_avg",), "e_x": ("acc_delta",)},
    # Adamax keeps its largest gradients where Adam keeps squares.
    "ScaleByAdamState": {"mu": ("exp_avg",), "nu": ("exp_avg_sq", "exp_inf")},
    "ScaleByAmsgradState": {"mu": ("exp_avg",), "nu": ("exp_avg_sq",)},
    "ScaleByLionState": {"mu": ("exp_avg",)},
    "ScaleByRmsState": {"nu": ("square_avg",)},
    "ScaleByRmsWithCountState": {"nu": ("square_avg",)},
    # DeepSpeed's Adagrad keeps its sum under Adam's name.
    "ScaleByRssState": {"sum_of_squares": ("sum", "exp_avg_sq")},
    "ScaleByRStdDevState": {"mu": ("grad_avg",), "nu": ("square_avg",)},
    "ScaleByRStdDevWithCountState": {"mu": ("grad_avg",), "nu": ("square_avg",)},
    "TraceState": {"trace": ("momentum_buffer",)},
}
"""Type of optax -> its field -> torch's keys of the same moment."""
BY_FIELD = {
    "mu": ("exp_avg",),
    "nu": ("exp_avg_sq",),
    "trace": ("momentum_buffer",),
    "sum_of_squares": ("sum",),
}
"""The same for types that are not optax's; torch's own keys count as well."""
COUNTS = {
    ("ScaleByScheduleState", "count"): "updates",
    ("WrappedScheduleState", "count"): "updates",
    ("InjectHyperparamsState", "count"): "updates",
    ("InjectStatefulHyperparamsState", "count"): "updates",
    ("MultiStepsState", "gradient_step"): "updates",
    ("ConditionallyTransformState", "step"): "updates",
    ("ConditionallyMaskState", "step"): "updates",
    ("ApplyIfFiniteState", "total_notfinite"): "skipped",
}
"""Type and field -> the counter that it is; other counts are the optimizer's."""
AT_REST = {
    ("MultiStepsState", "mini_step"),
    ("MultiStepsState", "acc_grads"),
    ("ApplyIfFiniteState", "notfinite_count"),
    ("ApplyIfFiniteState", "last_finite"),
    ("ZeroNansState", "found_nan"),
}
"""What is between two steps as it is at the start."""
RATE = ("hyperparams", "learning_rate")


class Field(NamedTuple):
    """A part of a state that is looked at as one.

    Attributes:
      owner: the named tuple around it.
      name: its field.
      path: keys from the state's root.
      value: an array, or a tree of parameters' names.
    """

    owner: Any
    name: str
    path: tuple[str, ...]
    value: Any

    @property
    def label(self) -> tuple[str, str]:
        """Type and field."""
        return type(self.owner).__name__, self.name


class Slot(NamedTuple):
    """What an array of a state is.

    Attributes:
      kind: "moment", "counter" or "rate".
      key: torch's key of the moment, or the name of the counter.
      leaf: leaf of the moment.
    """

    kind: str
    key: str
    leaf: str = ""


class Found(NamedTuple):
    """What was found in a state.

    Attributes:
      slots: path of an array in the state -> what it is.
      unmatched: parts without a counterpart, "PATH (TYPE.FIELD)".
    """

    slots: dict[str, Slot]
    unmatched: list[str]


def find(state: Any, optimized: Structure, shapes: Any, keys: Iterable[str]) -> Found:
    """Returns what each array of a state is.

    Args:
      state: of the port's optimizer.
      optimized: tree of the parameters that the optimizer was given.
      shapes: leaf -> shape.
      keys: torch's keys that the checkpoint has moments by.
    """
    keys = list(keys)
    shapes = {name: tuple(shapes[name]) for name in optimized.names}
    slots: dict[str, Slot] = {}
    unmatched: dict[tuple[str, ...], str] = {}
    for field in _fields(state, optimized.prefix, shapes):
        found = _slots(field, optimized.prefix, shapes, keys)
        slots |= found
        if not found and field.label not in AT_REST:
            where = field.path[: len(field.path) - _depth(field)]
            unmatched[where] = f"{'/'.join(where)} ({'.'.join(field.label)})"
    return Found(slots, list(unmatched.values()))


def named(state: Any) -> dict[str, Any]:
    """Returns {path: array} of a state; {} of an empty one."""
    return Structure(state).flatten(state) if jax.tree.leaves(state) else {}


def renamed(state: Any, arrays: Mapping[str, Any]) -> Any:
    """Returns the state with these arrays by path."""
    return Structure(state).unflatten(arrays) if jax.tree.leaves(state) else state


def counted(
    slots: Mapping[str, Slot], arrays: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Returns {counter: value} of a state.

    Raises:
      UserError: two arrays of one counter differ.
    """
    found: dict[str, tuple[str, int]] = {}
    for path, slot in slots.items():
        if slot.kind == "counter":
            value = int(arrays[path])
            first, other = found.setdefault(slot.key, (path, value))
            if other != value:
                raise UserError(
                    f"--from: opt_state/{path} is {value}, opt_state/{first} is "
                    f"{other}; torch counts once, make them equal"
                )
    return {key: value for key, (_, value) in found.items()}


def _fields(
    node: Any, prefix: str, shapes: Mapping[str, Any], at: Field | None = None
) -> Iterator[Field]:
    """Yields the parts of a state that are arrays, or trees of parameters."""
    here = at or Field(None, "", (), node)
    if node is None:
        return
    if _leaves(node, prefix, shapes):
        yield here._replace(value=node)
    elif isinstance(node, tuple) and (names := getattr(node, "_fields", ())):
        for name, value in zip(names, node):
            inner = Field(node, name, (*here.path, name), value)
            yield from _fields(value, prefix, shapes, inner)
    elif isinstance(node, tuple | list | Mapping):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in pairs:
            inner = here._replace(path=(*here.path, str(key)))
            yield from _fields(value, prefix, shapes, inner)
    else:
        yield here._replace(value=node)


def _leaves(node: Any, prefix: str, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {leaf: array} of a tree of parameters, perhaps of some; else {}."""
    if not jax.tree.leaves(node):
        return {}
    found = Structure(node, prefix).flatten(node)
    is_like = all(n in shapes and np.shape(a) == shapes[n] for n, a in found.items())
    return found if is_like else {}


def _slots(
    field: Field, prefix: str, shapes: Mapping[str, Any], keys: list[str]
) -> dict[str, Slot]:
    path = "/".join(field.path)
    held = _leaves(field.value, prefix, shapes)
    if held:
        key = _moment_key(field, keys)
        short = {leaf: leaf.removeprefix(prefix) for leaf in held}
        paths = {
            leaf: f"{path}/{name}" if name else path for leaf, name in short.items()
        }
        return {paths[n]: Slot("moment", key, n) for n in held} if key else {}
    counter = _counter(field)
    if counter:
        return {path: Slot("counter", counter)}
    return {path: Slot("rate", "lr")} if _is_rate(field) else {}


def _moment_key(field: Field, keys: list[str]) -> str | None:
    """Returns torch's key of a moment, if the checkpoint has one."""
    kind, name = field.label
    if _is_optax(field.owner):
        wanted = MOMENTS.get(kind, {}).get(name, ())
    else:
        wanted = (*BY_FIELD.get(name, ()), name)
    if name == "sum_of_squares" and "exp_avg" in keys:
        wanted = ("sum",)
    return next((key for key in wanted if key in keys), None)


def _counter(field: Field) -> str | None:
    if field.label in COUNTS:
        return COUNTS[field.label]
    kind, name = field.label
    counts = kind in MOMENTS or not _is_optax(field.owner)
    return "optimizer_step" if name == "count" and counts else None


def _is_rate(field: Field) -> bool:
    """A rate that was injected as a number; one of a schedule is computed anew."""
    schedules = getattr(field.owner, "hyperparams_states", {})
    return field.path[-2:] == RATE and "learning_rate" not in schedules


def _is_optax(owner: Any) -> bool:
    return type(owner).__module__.partition(".")[0] == "optax"


def _depth(field: Field) -> int:
    """Keys of a path below its field, which are said once."""
    below = field.path[::-1].index(field.name) if field.name in field.path else 0
    return 0 if field.name == "hyperparams" else below

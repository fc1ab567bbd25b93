"""Trace: a step-by-step recording of training, in a format that any script can write.

A trace is a folder:

    meta.json                     describes the run and the order of its tensors
    step_000000.safetensors       one file per step, numbered from 0 without a gap

meta.json is an object with these keys, and whatever else the writer adds:

    `version`        version of this format, 3; 2 is read as well
    `level`          what is recorded: "losses", "params" or "full"; see below
    `stack`          name of the program or library that trained
    `precision`      precision of the forward pass: "fp32", "fp16", ...
    `world_size`     number of ranks
    `flags`          lines of the flagfile; [] if there is none
    `versions`       package -> version
    `order`          order of the tensors; see below
    `first_step`     optional: steps done before the first recorded one; 0 by default
    `names`          optional: whose names and layouts these are; "flax" by default, or
                     "torch", which a program of one's own records; see the end

A step file is a flat mapping of names to arrays. Names and layouts are Flax's:

    batch/ids                     [samples] int32: sample ids of the global batch, in
                                  order, without padding
    batch/KIND/digest             optional: [32] uint8 SHA-256 of what the step was
                                  given, KIND being inputs and targets; see below
    batch/KIND/mean               [columns] float64
    batch/KIND/largest            [columns] float64: largest magnitudes
    params/NAME                   master parameters before the step
    batch_stats/NAME              running statistics of batch normalization before the
                                  step
    moments/first/NAME            first moments of the optimizer before the step
    moments/second/NAME           second moments of the optimizer before the step
    optimizer_step                () int32: updates applied before the step
    activations/LAYER             [samples, ...] output of a layer, rows in the order of
                                  batch/ids; see below
    loss                          () float32: mean over the batch, unscaled
    grads/NAME                    gradients of the mean loss: unscaled, averaged over
                                  ranks, before clipping
    grad_norm                     () float32: global l2 norm of `grads`; inf on overflow
    loss_scale                    () float32: scale that multiplied the loss of the step
    skipped                       () bool: the step overflowed and changed nothing
    learning_rate                 () float32
    updated/NAME                  master parameters after the step
    updated_batch_stats/NAME      running statistics after the step
    updated_moments/first/NAME    first moments after the step
    updated_moments/second/NAME   second moments after the step

`level` selects what the step files hold: "losses" means batch/ids and the scalars,
"params" adds parameters, running statistics and moments, "full" adds activations and
gradients. A step file appears whole or not at all, so the trace of a killed run is
readable up to its last whole step.

Digests. What the network was given, scaled, in the order of batch/ids and without
padding, is hashed as the little-endian bytes of float32, or int64 if it is whole
numbers. Columns are the last axis: features of a table or sequence, channels of an
image, positions of tokens.

Activations. A layer is a module below the network itself that has parameters, its own
or those of its submodules. LAYER is the path of the module as in the names of its
parameters, `block_0/qkv`. Recorded is its output (the first one if it returns several)
as the forward pass leaves it, before anything else is done to it: images as [samples,
height, width, channels], sequences as [samples, steps, features], FP16 and BF16
converted exactly to float32. If a layer is called several times, its first call counts.
Outputs that are not floating-point arrays with one row per sample are left out. A trace
may lack activations altogether; they are then not judged.

Programs of one's own. `parity.own.record` writes `names` "torch": NAME and LAYER are
the dotted paths of `named_parameters()` and `named_modules()`, layouts are torch's. A
tensor that could not be read is absent, and `absent` in meta.json says why; it is never
filled with zeros. There, too, are `trained`, `frozen` and `ties` ({name: the name that
holds the same tensor}), `modules` ({path: class} of the modules with
parameters of their own), `groups` (names of each parameter group), `optimizer` (its
class), `autocast` (null, "bf16" or "fp16"), `zero_stage` (null without DeepSpeed),
`accumulation_steps`, `passes` (forward passes of a step, all ranks'), `config` (what
DeepSpeed was given) and `unreachable_dropout` (where dropouts are whose masks could not
be recorded). A step has, besides the above:

    forward/NAME                  fp16 or bf16 weights that the first forward pass read,
                                  where they are not the masters themselves
    buffers/NAME                  buffers before the step, in place of batch_stats
    updated_buffers/NAME          buffers after it
    groups/G/KEY                  float64 hyper-parameters of group G before the step:
                                  lr, weight_decay, betas, eps, momentum, ...
    counters/NAME                 () int32: updates that the optimizer has counted for a
                                  parameter before the step, where that is not
                                  optimizer_step: torch skips what has no gradient
    passes/P/inputs/ARG           what forward pass P was given, by the name of the
                                  argument; P counts microbatches, within them ranks
    passes/P/targets/N            other tensors that its loss was computed from, in the
                                  order of their first use
    passes/P/masks/N              bool dropout masks, True: kept, in the order of use;
                                  a dropout of rate 0 has none
    passes/P/activations/LAYER    outputs of the modules that return a floating tensor,
                                  in the order in which they end
    passes/P/loss                 () float32: what backward was called on, unscaled
    passes/P/weight               () float32: `grads` is the sum over the passes of
                                  weight times gradient of loss, `loss` that of weight
                                  times loss

`grads` lacks the parameters that no pass used. `activations`, `batch/ids` and
`batch_stats` are left out. An input beyond the recorder's `limit` bytes is recorded as
passes/P/digests/ARG, the 32 bytes of its SHA-256.

Order. `order` is {"params": [NAME, ...], "activations": [LAYER, ...]}: parameters in
the order of the model, activations in that of the forward pass. The writer takes both
from the first step, whose mappings must be in these orders. Gradients are computed in
the opposite order.

>>> import numpy as np
>>> from jaxnn.experiment.files.trace import Reader, Writer
>>> meta = {
...     "stack": "mine",
...     "precision": "fp32",
...     "world_size": 1,
...     "flags": ["--model=linear"],
...     "versions": {"numpy": "2.0"},
... }
>>> writer = Writer("run/trace", "full", meta)
>>> kernel = np.ones((2, 1), np.float32)
>>> x, y = np.eye(2, dtype=np.float32), np.zeros((2, 1))
>>> rate = np.float32(0.5)
>>> for step in range(3):
...     output = x @ kernel
...     gradient = x.T @ (output - y).astype(np.float32)
...     updated = kernel - rate * gradient
...     writer.write(step, {
...         "batch/ids": np.arange(2, dtype=np.int32),
...         "params": {"output": {"kernel": kernel}},
...         "optimizer_step": np.int32(step),
...         "activations": {"output": output},
...         "loss": np.float32(np.mean((output - y) ** 2)),
...         "grads": {"output/kernel": gradient},
...         "grad_norm": np.float32(np.linalg.norm(gradient)),
...         "loss_scale": np.float32(1),
...         "skipped": np.bool_(False),
...         "learning_rate": rate,
...         "updated": {"output/kernel": updated},
...     })
...     kernel = updated
>>> trace = Reader("run/trace")
>>> len(trace), trace.meta["order"]
(3, {'params': ['output/kernel'], 'activations': ['output']})
>>> [float(trace.read(step)["loss"]) for step in range(len(trace))]
[1.0, 0.25, 0.0625]
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts

Number: TypeAlias = Any
"""An array or a NumPy scalar: NumPy's own functions return either for one number."""

Folder: TypeAlias = str | pathlib.Path
"""Folder of a trace."""

VERSION = 3
# Versions that a Reader takes.
KNOWN_VERSIONS = (2, 3)

# Level -> the first parts of the names that it adds to the levels before it.
LEVELS = {
    "losses": (
        "batch",
        "loss",
        "grad_norm",
        "loss_scale",
        "skipped",
        "learning_rate",
        "optimizer_step",
    ),
    "params": (
        "params",
        "batch_stats",
        "moments",
        "updated",
        "updated_batch_stats",
        "updated_moments",
        "buffers",
        "updated_buffers",
        "groups",
        "counters",
    ),
    "full": ("activations", "grads", "forward", "passes"),
}

# Required keys of meta.json besides the version -> type of the value.
META = {
    "level": str,
    "stack": str,
    "precision": str,
    "world_size": int,
    "flags": list,
    "versions": dict,
    "order": dict,
}

# The kinds of tensors whose order meta.json holds.
ORDERED = ("params", "activations")


class Writer:
    """Writes a trace.

    Args:
      folder: folder to create; it must not exist.
      level: "losses", "params" or "full".
      meta: stack, precision, world_size, flags and versions, and further entries.

    Raises:
      UserError: the meta lacks a key, or holds a value that JSON cannot represent.
    """

    def __init__(self, folder: Folder, level: str, meta: Mapping[str, Any]):
        self._folder = folder = pathlib.Path(folder)
        self._is_ordered = False
        self._meta = {
            "version": VERSION,
            "level": level,
            **meta,
            "order": {kind: [] for kind in ORDERED},
        }

        # Everything that can be wrong with the meta is found before the folder exists:
        # a second attempt would otherwise find it taken.
        _check(self._meta, folder / "meta.json")
        self._kinds = _kinds(level)
        text = self._meta_as_json()

        folder.mkdir(parents=True)
        artifacts.write_text(folder / "meta.json", text)

    def write(self, step: int, tensors: Mapping[str, Any]) -> None:
        """Writes one step; tensors that the level does not include are left out.

        Args:
          step: step index, from 0.
          tensors: nested or flat mapping; nested keys are joined by "/".
        """
        flat = {
            name: array
            for name, array in flatten(tensors).items()
            if name.split("/")[0] in self._kinds
        }

        # The order goes to meta.json before the step file appears, so that a reader
        # never sees a whole step without it.
        if not self._is_ordered:
            self._meta["order"] = {
                kind: list(select(flat, kind) or select(flat, f"passes/0/{kind}"))
                for kind in ORDERED
            }
            self._is_ordered = True
            artifacts.write_text(self._folder / "meta.json", self._meta_as_json())

        artifacts.write_arrays(self._folder / _step_file(step), flat)

    @classmethod
    def resume(cls, folder: Folder) -> "Writer":
        """Returns a writer that adds steps to the trace in a folder.

        Raises:
          UserError: there is no trace, or it is damaged or of another version.
        """
        writer = cls.__new__(cls)
        writer._folder = pathlib.Path(folder)
        writer._meta = Reader(folder).meta
        writer._kinds = _kinds(writer._meta["level"])
        writer._is_ordered = any(writer._meta["order"].values())
        return writer

    def amend(self, entries: Mapping[str, Any]) -> None:
        """Replaces entries of meta.json by what later steps have shown.

        Raises:
          UserError: JSON cannot represent an entry.
        """
        self._meta |= entries
        artifacts.write_text(self._folder / "meta.json", self._meta_as_json())

    def _meta_as_json(self) -> str:
        try:
            return json.dumps(self._meta, indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self._folder / 'meta.json'}: cannot write the meta of the trace: "
                f"{error}"
            ) from None


class Reader:
    """Reads a trace.

    Args:
      folder: folder that `Writer` wrote.

    Attributes:
      meta: content of meta.json.
      first: index of the first step to judge.

    Raises:
      UserError: there is no trace, or it is damaged or of another version.
    """

    first = 0

    def __init__(self, folder: Folder):
        self._folder = folder = pathlib.Path(folder)
        try:
            text = (folder / "meta.json").read_text("utf-8")
            self.meta: dict[str, Any] = dict(json.loads(text, parse_constant=_refuse))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UserError(
                f"{folder / 'meta.json'}: no readable trace there: {error}"
            ) from None

        # The version comes first: another version may have other keys.
        if self.meta.get("version") not in KNOWN_VERSIONS:
            raise UserError(
                f"{folder}: trace version {self.meta.get('version')!r}, this program "
                f"reads {' and '.join(map(str, KNOWN_VERSIONS))}; record it again"
            )
        _check(self.meta, folder / "meta.json")

    def __len__(self) -> int:
        """Number of whole steps, counted from 0 up to the first gap."""
        step = 0
        while (self._folder / _step_file(step)).exists():
            step += 1
        return step

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Returns the tensors of one step by flat name.

        Raises:
          UserError: the step is missing or damaged.
        """
        return artifacts.read_arrays(self._folder / _step_file(step), f"step {step}")


def grad_norm(grads: Iterable[np.ndarray], skipped: bool) -> np.float32:
    """Returns a step's `grad_norm`: global l2 norm of the gradients, inf if skipped."""
    if skipped:
        return np.float32(np.inf)
    # In float64: squares in float32 overflow above 1.8e19 and vanish below 2.6e-23.
    squares = sum(np.sum(np.square(g, dtype=np.float64)) for g in grads)
    return np.float32(np.sqrt(squares))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def select(flat: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a kind by their names within it: "grads/a/b" -> "a/b"."""
    return {
        name.removeprefix(f"{kind}/"): value
        for name, value in flat.items()
        if name.startswith(f"{kind}/")
    }


def _step_file(step: int) -> str:
    return f"step_{step:06d}.safetensors"


def _check(meta: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises UserError on the first key of a meta that is missing or ill-typed."""
    for key, kind in META.items():
        if not isinstance(meta.get(key), kind):
            found = repr(meta[key]) if key in meta else "missing"
            raise UserError(
                f"{path}: {key} is {found}, not a {kind.__name__}; give it to "
                "parity.trace.Writer"
            )
    # Whoever trusts these would otherwise be told of parity: True is an int to Python.
    if isinstance(meta["world_size"], bool) or meta["world_size"] < 1:
        raise UserError(
            f"{path}: world_size is {meta['world_size']!r}, not a number of ranks from "
            "1; correct it"
        )
    first = meta.get("first_step", 0)
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise UserError(
            f"{path}: first_step is {first!r}, not a number of steps from 0; correct it"
        )
    if not _are_names(meta["flags"]):
        raise UserError(
            f"{path}: flags are not lines of a flagfile, ['--epochs=3', ...]; correct "
            "them"
        )
    if meta["level"] not in LEVELS:
        raise UserError(
            f"{path}: level is {meta['level']!r}, not one of {', '.join(LEVELS)}"
        )
    orders = [meta["order"].get(kind) for kind in ORDERED]
    if not all(isinstance(order, list) and _are_names(order) for order in orders):
        raise UserError(
            f"{path}: order lacks the names of {' or '.join(ORDERED)}; "
            "parity.trace.Writer writes them"
        )


def _are_names(items: list[Any]) -> bool:
    return all(isinstance(item, str) for item in items)


def _refuse(constant: str) -> None:
    # json.loads takes NaN and Infinity unless it is given a parse_constant.
    raise ValueError(f"{constant} is no number of JSON")


def _kinds(level: str) -> tuple[str, ...]:
    """Returns the kinds of a level and of all levels before it."""
    names = list(LEVELS)
    included = names[: names.index(level) + 1]
    return sum((LEVELS[name] for name in included), ())

"""A recording of training, step by step: a public format that any training script can
write.

A trace is a folder:

    meta.json                     what the run was, and the order of the tensors
    step_000000.safetensors       one a step, in order from 0

meta.json holds `version`, `level`, `stack` (the name of what trained), `precision` (of
the forward pass), `world_size` (ranks), `flags` (lines of a flagfile, [] if there is
none), `versions` (package -> version) and `order` (see below), perhaps `first_step`
(the run's steps before the first that is recorded; else 0), and whatever else the
writer adds. Each step file is a flat mapping of canonical (Flax) names and layouts to
arrays:

    batch/ids                     [samples] int32: which samples, in order; without padding
    params/NAME                   master parameters before the step
    batch_stats/NAME              running statistics of batch normalization before the step
    moments/first/NAME, moments/second/NAME   optimizer moments before the step
    optimizer_step                () int32: updates applied before the step
    activations/LAYER             [samples, ...] the layer's output, rows in the order of batch/ids; see below
    loss                          () float32: mean over the batch, unscaled
    grads/NAME                    unscaled gradients of the mean loss, averaged over ranks, before clipping
    grad_norm                     () float32: global l2 norm of `grads`; inf on an overflow
    loss_scale                    () float32: the scale that multiplied this step's loss
    skipped                       () bool: the step overflowed and changed nothing
    learning_rate                 () float32
    updated/NAME                  master parameters after the step
    updated_batch_stats/NAME      running statistics after the step
    updated_moments/first/NAME, updated_moments/second/NAME   moments after the step

A layer is a module of the network that has parameters, its own or its parts'; the
network as a whole is none, and has its last layer's output. LAYER is its path,
`block_0/qkv`, as in the names of its parameters. Its output, the first if it returns
several, is recorded as the forward pass left it before anything else was done to it,
images as [samples, height, width, channels], sequences as [samples, steps, features],
FP16 and BF16 exactly as float32. Left out are outputs that are no floating-point array
of one row a sample. Of a layer that is called again the first call counts. A trace may
do without any activations, which are then not judged.

`order` is {"params": [NAME, ...], "activations": [LAYER, ...]}: the model's order and
that of the forward pass. The writer takes it from the first step, whose mappings must
be in these orders; gradients run the other way.

`--record=losses` keeps batch/ids and the scalars, `params` adds parameters and moments,
`full` adds activations and gradients. A step file appears whole or not at all, so a
killed run leaves a trace that is readable up to its last whole step.

>>> import pathlib, numpy as np
>>> from jaxnn.experiment.files.trace import Reader, Writer
>>> meta = dict(stack="mine", precision="fp32", world_size=1, flags=["--model=linear"], versions={"numpy": "2.0"})
>>> writer = Writer(pathlib.Path("run/trace"), "full", meta)
>>> kernel, x, y, rate = np.ones((2, 1), np.float32), np.eye(2, dtype=np.float32), np.zeros((2, 1)), np.float32(0.5)
>>> for step in range(3):
...     output = x @ kernel
...     gradient = x.T @ (output - y).astype(np.float32)
...     writer.write(step, {
...         "batch/ids": np.arange(2, dtype=np.int32), "params": {"output": {"kernel": kernel}},
...         "activations": {"output": output}, "loss": np.float32(np.mean((output - y) ** 2)),
...         "grads": {"output/kernel": gradient}, "grad_norm": np.float32(np.linalg.norm(gradient)),
...         "loss_scale": np.float32(1), "skipped": np.bool_(False), "learning_rate": rate,
...         "optimizer_step": np.int32(step), "updated": {"output/kernel": kernel - rate * gradient}})
...     kernel = kernel - rate * gradient
>>> trace = Reader(pathlib.Path("run/trace"))
>>> len(trace), trace.meta["order"]
(3, {'params': ['output/kernel'], 'activations': ['output']})
>>> [float(trace.read(step)["loss"]) for step in range(len(trace))]
[1.0, 0.25, 0.0625]
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts

VERSION = 2
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
    ),
    "full": ("activations", "grads"),
}
META = {
    "level": str,
    "stack": str,
    "precision": str,
    "world_size": int,
    "flags": list,
    "versions": dict,
    "order": dict,
}
"""What meta.json holds besides the version -> its type."""
ORDERED = ("params", "activations")


class Writer:
    """Writes a trace.

    Args:
      folder: made if missing; must not hold a trace.
      level: "losses", "params" or "full".
      meta: what the run was: stack, precision, world_size, flags, versions, and more if
        you like.

    Raises:
      UserError: the meta lacks something, or holds what JSON cannot.
    """

    def __init__(self, folder: pathlib.Path, level: str, meta: Mapping[str, Any]):
        self._folder, self._is_ordered = folder, False
        self._meta = {
            "version": VERSION,
            "level": level,
            **meta,
            "order": {kind: [] for kind in ORDERED},
        }
        _check(self._meta, folder / "meta.json")
        self._kinds, text = _kinds(level), self._meta_as_json()
        folder.mkdir(parents=True)
        artifacts.write_text(folder / "meta.json", text)

    def write(self, step: int, tensors: Mapping[str, Any]) -> None:
        """Writes one step; tensors of kinds beyond the level are left out.

        Args:
          step: 0-based.
          tensors: a mapping, nested or flat; nested keys are joined by "/".
        """
        flat = {
            name: array
            for name, array in flatten(tensors).items()
            if name.split("/")[0] in self._kinds
        }
        if not self._is_ordered:
            self._meta["order"], self._is_ordered = (
                {kind: list(select(flat, kind)) for kind in ORDERED},
                True,
            )
            artifacts.write_text(self._folder / "meta.json", self._meta_as_json())
        artifacts.write_arrays(self._folder / f"step_{step:06d}.safetensors", flat)

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
      folder: as `Writer` made it.

    Attributes:
      meta: what meta.json holds.
      first: the first step to judge.

    Raises:
      UserError: no trace there, a damaged one, or one of another version.
    """

    first = 0

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        try:
            text = (folder / "meta.json").read_text()
            self.meta: dict[str, Any] = dict(json.loads(text, parse_constant=_refuse))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{folder / 'meta.json'}: no readable trace there: {error}"
            ) from None
        if self.meta.get("version") != VERSION:
            raise UserError(
                f"{folder}: trace version {self.meta.get('version')}, this program "
                f"reads {VERSION}; record it again"
            )
        _check(self.meta, folder / "meta.json")

    def __len__(self) -> int:
        """Whole steps, counted from 0 without a gap."""
        step = 0
        while (self._folder / f"step_{step:06d}.safetensors").exists():
            step += 1
        return step

    def read(self, step: int) -> dict[str, np.ndarray]:
        """One step's tensors by flat name.

        Raises:
          UserError: the step is missing or damaged.
        """
        return artifacts.read_arrays(
            self._folder / f"step_{step:06d}.safetensors", f"step {step}"
        )


def grad_norm(grads: Iterable[np.ndarray], skipped: bool) -> np.float32:
    """The trace's `grad_norm`: the gradients' global l2 norm, summed in float64; inf
    for a skipped step."""
    return np.float32(
        np.inf
        if skipped
        else np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads))
    )


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
    """The tensors under one kind, without its prefix: select(step, "grads") ->
    {"output/bias": ...}."""
    return {
        name.removeprefix(f"{kind}/"): value
        for name, value in flat.items()
        if name.startswith(f"{kind}/")
    }


def _check(meta: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises UserError on the first entry of a meta that is missing or of another type."""
    for key, kind in META.items():
        if not isinstance(meta.get(key), kind):
            found = repr(meta[key]) if key in meta else "missing"
            raise UserError(
                f"{path}: {key} is {found}, not a {kind.__name__}; give it to "
                "parity.trace.Writer"
            )
    if meta["level"] not in LEVELS:
        raise UserError(
            f"{path}: level is {meta['level']!r}, not one of {', '.join(LEVELS)}"
        )
    if not all(isinstance(meta["order"].get(kind), list) for kind in ORDERED):
        raise UserError(
            f"{path}: order lacks the names of {' or '.join(ORDERED)}; "
            "parity.trace.Writer writes them"
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _kinds(level: str) -> tuple[str, ...]:
    names = list(LEVELS)
    return sum((LEVELS[name] for name in names[: names.index(level) + 1]), ())

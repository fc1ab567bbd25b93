"""A recording of somebody's torch program, by the names and layouts of their port."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.files.weight_map import Kind
from parity.noise import FLOAT32, Tensors
from parity.own.layers import Pairs
from parity.own.passes import Pass, passes_of
from parity.own.state_dict import Converted

SCALARS = (
    "loss",
    "grad_norm",
    "loss_scale",
    "skipped",
    "learning_rate",
    "optimizer_step",
)
KINDS: dict[str, Kind] = {
    "params": "value",
    "updated": "value",
    "grads": "gradient",
    "moments/first": "gradient",
    "moments/second": "second",
    "updated_moments/first": "gradient",
    "updated_moments/second": "second",
}
"""Kind of a tensor in the trace -> how it goes through a converter."""


class Ported:
    """A recording whose parameters, gradients and moments have a port's names.

    Args:
      trace: recording in torch's names.
      converted: where the port's leaves come from.

    Attributes:
      meta: meta.json of the trace.
      parameters: leaves that are made of parameters.
      trained: those of them that training moves.
      statistics: leaves that are made of buffers.
    """

    def __init__(self, trace: Reader, converted: Converted):
        self._trace = trace
        self._converted = converted
        self.meta = trace.meta
        first = trace.read(0)
        held = select(first, "params").keys()
        frozen = set(trace.meta.get("frozen", ()))
        needs = converted.weights.origins
        self.parameters = [leaf for leaf, names in needs.items() if names & held]
        self.trained = [leaf for leaf in self.parameters if not needs[leaf] <= frozen]
        self.statistics = [leaf for leaf in needs if leaf not in self.parameters]
        self.raw: Callable[[int], Tensors] = functools.lru_cache(maxsize=4)(trace.read)

    def __len__(self) -> int:
        """Number of whole steps."""
        return len(self._trace)

    @functools.cached_property
    def learned(self) -> list[int]:
        """Indices of the steps that no overflow skipped."""
        return [n for n in range(len(self)) if not self.raw(n)["skipped"]]

    def read(self, number: int) -> Tensors:
        """Returns a step by the port's names; activations are left out."""
        raw = self.raw(number)
        step = {name: raw[name] for name in SCALARS if name in raw}
        for kind, how in KINDS.items():
            arrays = select(raw, kind)
            if kind in ("params", "updated"):
                prefix = "updated_" if kind == "updated" else ""
                arrays |= _floating(select(raw, f"{prefix}buffers"))
            if kind == "grads":
                arrays |= self._unused(arrays)
            if arrays:
                step |= self._converted_kind(kind, arrays, how)
        return step

    def leaves(self, number: int) -> Tensors:
        """Returns {leaf: array} before a step, running statistics included."""
        raw = self.raw(number)
        arrays = select(raw, "params") | _floating(select(raw, "buffers"))
        converted = self._converted.weights.apply(arrays, "value")
        lacking = [
            leaf for leaf in self._converted.structure.names if leaf not in converted
        ]
        if lacking:
            raise UserError(
                f"cannot judge: step {number} of the recording lacks what {lacking[0]} "
                f"is made of: {', '.join(self._converted.weights.origins[lacking[0]])}"
            )
        return {name: array.astype(FLOAT32) for name, array in converted.items()}

    def weights_read(self, number: int) -> Tensors:
        """Returns {leaf: what the forward pass read}, float32, of all parameters."""
        raw = self.raw(number)
        read = {
            name: array.astype(FLOAT32)
            for name, array in select(raw, "forward").items()
        }
        arrays = select(raw, "params") | read
        converted = self._converted.weights.apply(arrays, "value")
        return {name: converted[name].astype(FLOAT32) for name in self.parameters}

    def gradients(self, number: int) -> Tensors:
        """Returns {leaf: gradient} of all leaves, zeros where none was recorded."""
        found = select(self.read(number), "grads")
        leaves = self.leaves(number)
        return {n: found.get(n, np.zeros_like(leaf)) for n, leaf in leaves.items()}

    def source(self, leaf: str, number: int) -> int:
        """Returns the step whose gradient a leaf is updated by."""
        del leaf
        return number

    def unused(self, number: int) -> list[str]:
        """Returns the trained leaves that no pass of a step has used."""
        used = select(self.raw(number), "grads").keys()
        origins = self._converted.weights.origins
        return [leaf for leaf in self.trained if not origins[leaf] & used]

    def without_moments(self, number: int) -> set[str]:
        """Returns names of moments after a step that were recorded of others alone."""
        raw = self.raw(number)
        lacking = set()
        for kind in ("updated_moments/first", "updated_moments/second"):
            held = select(raw, kind).keys()
            origins = self._converted.weights.origins
            if held:
                lacking |= {
                    f"{kind}/{n}" for n in self.trained if not origins[n] & held
                }
        return lacking

    def passes(self, number: int) -> list[Pass]:
        """Returns the forward passes of a step."""
        return passes_of(self.raw(number), self._pass_count(number))

    def activations(
        self, number: int, shapes: Sequence[Mapping[str, tuple[int, ...]]], pairs: Pairs
    ) -> Tensors:
        """Returns {module of the port: its outputs in all passes, flat}.

        Args:
          number: index of the step.
          shapes: {module: shape of its output} of each pass of the port.
          pairs: modules of both sides.
        """
        raw = self.raw(number)
        found: dict[str, list[np.ndarray]] = {}
        for place, outputs in enumerate(shapes):
            recorded = select(raw, f"passes/{place}/activations")
            for module, shape in outputs.items():
                name = pairs.torch_of.get(module)
                if name in recorded:
                    array = pairs.in_port_layout(recorded[name], shape)
                    if array is not None:
                        found.setdefault(module, []).append(array.ravel())
        return {
            module: np.concatenate(arrays)
            for module, arrays in found.items()
            if len(arrays) == len(shapes)
        }

    def _converted_kind(self, kind: str, arrays: Tensors, how: Kind) -> Tensors:
        converted = self._converted.weights.apply(arrays, how)
        statistics = set(self.statistics)
        named = {}
        for leaf, array in converted.items():
            is_statistic = leaf in statistics
            prefix = _STATISTICS.get(kind, kind) if is_statistic else kind
            named[f"{prefix}/{leaf}"] = array.astype(FLOAT32)
        return named

    def _unused(self, grads: Mapping[str, Any]) -> Tensors:
        """Returns zeros for trained parameters that no pass of a step has used."""
        unreadable = self.meta.get("absent", {})
        shapes = self._converted.weights.sources
        return {
            name: np.zeros(shapes[name], FLOAT32)
            for name in self.meta.get("trained", ())
            if name in shapes
            and name not in grads
            and f"grads/{name}" not in unreadable
        }

    def _pass_count(self, number: int) -> int:
        numbers = {
            int(name.split("/")[1])
            for name in self.raw(number)
            if name.startswith("passes/")
        }
        return len(numbers)


_STATISTICS = {"params": "batch_stats", "updated": "updated_batch_stats"}
"""Kind of a parameter -> that of a running statistic beside it."""


def _floating(arrays: Tensors) -> Tensors:
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fV"}

"""The layers of a network, found by tracing a training step: shapes, parameters, FLOPs,
and what is kept."""

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.extend import core

from jaxnn.describe import abstract_step, flops, residuals, step_memory
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.experiment.files.trace import flatten

NETWORK = "(network)"


class Layer(NamedTuple):
    """One row of the table; of a module in a module each has its own row, and nothing
    counts twice.

    Attributes:
      name: of the module, "block/conv" for conv in block; `NETWORK` for its own work;
        the loss comes last.
      kind: class of the module.
      output: what its last call returned, the last array of several; None: not a
        module.
      num_params: of its own.
      flops: of its own in the forward pass.
      kept: bytes that it keeps for the backward pass.
    """

    name: str
    kind: str
    output: jax.ShapeDtypeStruct | None
    num_params: int
    flops: int
    kept: int


class Traced(NamedTuple):
    """A step's forward and backward pass.

    Attributes:
      layers: in the order of their first calls.
      forward_flops: of the forward pass and the loss.
      gradient_flops: of forward and backward pass.
      has_loops: whether the program repeats a part of itself.
      kept: dtype -> bytes that the forward pass leaves to the backward pass, without
        parameters and inputs.
    """

    layers: list[Layer]
    forward_flops: int
    gradient_flops: int
    has_loops: bool
    kept: dict[str, int]


def trace(step: AbstractStep) -> Traced:
    """Traces forward and backward pass of the rows that are computed at once."""
    objective = abstract_step.make_objective(step)
    arguments = (step.compute_params, step.state.batch_stats, step.part)
    calls = Calls()
    forward = calls.trace(objective, *arguments)
    gradient = jax.make_jaxpr(jax.value_and_grad(objective, has_aux=True))(*arguments)
    kept = residuals.kept(Calls().trace, objective, *arguments)
    by_layer = _sums((value.layer, value.aval) for value in kept)
    layers = _layers(calls, step.state.params, flops.by_layer(forward), by_layer)
    return Traced(
        layers,
        flops.total(forward),
        flops.total(gradient),
        flops.has_loops(gradient),
        _sums((str(value.aval.dtype), value.aval) for value in kept),
    )


class Calls:
    """Watches the modules that a trace calls.

    Attributes:
      modules: "a.b" for module b in a -> (class, output of the last call).
    """

    def __init__(self):
        self.modules: dict[str, tuple[str, jax.ShapeDtypeStruct | None]] = {}

    def trace(self, function: Callable, *arguments: Any) -> core.ClosedJaxpr:
        """The program of a function of arrays, each operation in the named scope of its
        module."""
        with nn.intercept_methods(self._watch):
            return jax.make_jaxpr(function)(*arguments)

    def _watch(
        self,
        call: Callable,
        arguments: tuple,
        named: dict,
        context: nn.module.InterceptorContext,
    ) -> Any:
        if context.method_name == "setup":
            return call(*arguments, **named)
        path, kind = ".".join(context.module.path), type(context.module).__name__
        self.modules.setdefault(path, (kind, None))
        with jax.named_scope(f"{flops.LAYER}{path}"):
            result = call(*arguments, **named)
        arrays = [x for x in jax.tree.leaves(result) if hasattr(x, "dtype")]
        if arrays:
            self.modules[path] = (
                kind,
                jax.ShapeDtypeStruct(arrays[-1].shape, arrays[-1].dtype),
            )
        return result


def _layers(
    calls: Calls, params: Any, counts: Mapping[str, int], kept: Mapping[str, int]
) -> list[Layer]:
    num_params = _own_params(params, calls.modules.keys())
    rows = [
        Layer(
            path.replace(".", "/") or NETWORK,
            kind,
            output,
            num_params[path],
            counts.get(path, 0),
            kept.get(path, 0),
        )
        for path, (kind, output) in calls.modules.items()
    ]
    return [
        *rows,
        Layer(
            flops.OUTSIDE,
            "",
            None,
            0,
            counts.get(flops.OUTSIDE, 0),
            kept.get(flops.OUTSIDE, 0),
        ),
    ]


def _own_params(params: Any, paths: Collection[str]) -> dict[str, int]:
    """Module -> numbers of its parameters, each counted with the innermost module that
    was called."""
    sums: dict[str, int] = collections.Counter()
    for name, array in flatten(params).items():
        path = name.split("/")[:-1]
        while ".".join(path) not in paths:
            path.pop()
        sums[".".join(path)] += array.size
    return sums


def _sums(named: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Name -> bytes of all its arrays."""
    sums: dict[str, int] = collections.Counter()
    for name, array in named:
        sums[name] += step_memory.size_of(array)
    return dict(sums)

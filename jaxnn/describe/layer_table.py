"""The layers of a network, found by tracing a training step.

Shapes, parameters, FLOPs, and what is kept for the backward pass.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
from jax.extend import core

from jaxnn import flops
from jaxnn.describe import abstract_step, residuals, step_memory
from jaxnn.describe.abstract_step import AbstractStep
from jaxnn.experiment.files.trace import flatten

NETWORK = "(network)"
"""Name of the row of what the network does between its layers."""


class Layer(NamedTuple):
    """One row of the table. A module in a module has its own row; nothing counts twice.

    Attributes:
      name: name of the module, "block/conv" for conv in block; `NETWORK` for the
        outermost; `flops.OUTSIDE` for the loss, which comes last.
      kind: class of the module.
      output: what its last call returned, the last array of several; None for the loss.
      num_params: number of its own parameters.
      flops: its own FLOPs in the forward pass.
      kept: bytes that it keeps for the backward pass.
    """

    name: str
    kind: str
    output: jax.ShapeDtypeStruct | None
    num_params: int
    flops: int
    kept: int


class Traced(NamedTuple):
    """Forward and backward pass of a microbatch.

    Attributes:
      layers: the layers, in the order of their first calls.
      forward_flops: FLOPs of the forward pass and the loss.
      gradient_flops: FLOPs of forward and backward pass.
      has_loops: True if the program has a loop.
      kept: dtype -> bytes that the forward pass keeps for the backward pass, without
        parameters and inputs.
    """

    layers: list[Layer]
    forward_flops: int
    gradient_flops: int
    has_loops: bool
    kept: dict[str, int]


def trace(step: AbstractStep) -> Traced:
    """Traces forward and backward pass of a microbatch."""
    objective = abstract_step.make_objective(step)
    arguments = (step.compute_params, step.state.batch_stats, step.microbatch)
    calls = Calls()
    forward = calls.trace(objective, *arguments)
    gradient = jax.make_jaxpr(jax.value_and_grad(objective, has_aux=True))(*arguments)

    # Calls of its own: under jax.vjp modules are called once more.
    kept = residuals.kept(Calls().trace, objective, *arguments)
    # Only what a program is given has no layer, and that is not among them.
    kept_by_layer = _sums((cast(str, value.layer), value.aval) for value in kept)
    counts = flops.by_layer(forward)
    return Traced(
        _layers(calls, step.state.params, counts, kept_by_layer),
        sum(counts.values()),
        flops.total(gradient),
        flops.has_loops(gradient),
        _sums((str(value.aval.dtype), value.aval) for value in kept),
    )


class Calls:
    """Watches the modules that are called in a trace.

    Attributes:
      modules: "a.b" for module b in a -> (class, output of the last call).
    """

    def __init__(self):
        self.modules: dict[str, tuple[str, jax.ShapeDtypeStruct | None]] = {}

    def trace(self, function: Callable, *arguments: Any) -> core.ClosedJaxpr:
        """Traces a function; each operation is in the named scope of its module."""
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
        path = ".".join(context.module.path)
        kind = type(context.module).__name__
        # Entered before the call, so that a module comes before the ones inside it.
        self.modules.setdefault(path, (kind, None))
        with jax.named_scope(f"{flops.LAYER}{path}"):
            result = call(*arguments, **named)

        arrays = [x for x in jax.tree.leaves(result) if hasattr(x, "dtype")]
        if arrays:
            output = jax.ShapeDtypeStruct(arrays[-1].shape, arrays[-1].dtype)
            self.modules[path] = (kind, output)
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
    loss_flops = counts.get(flops.OUTSIDE, 0)
    loss_kept = kept.get(flops.OUTSIDE, 0)
    return [*rows, Layer(flops.OUTSIDE, "", None, 0, loss_flops, loss_kept)]


def _own_params(params: Any, paths: Collection[str]) -> dict[str, int]:
    """Returns {module: number of parameters}, each counted with one module.

    That is the innermost module that was called.
    """
    sums: dict[str, int] = collections.Counter()
    for name, array in flatten(params).items():
        path = name.split("/")[:-1]
        # `positions` of a transformer is read, not called: its table is the network's.
        while ".".join(path) not in paths:
            path.pop()
        sums[".".join(path)] += array.size
    return sums


def _sums(named: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Returns {name: bytes of all its arrays}."""
    sums: dict[str, int] = collections.Counter()
    for name, array in named:
        sums[name] += step_memory.size_of(array)
    return dict(sums)

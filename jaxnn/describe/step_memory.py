"""What a training step holds in memory: its tensors by purpose, and what the compiled
program says of itself."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import precision, train_step
from jaxnn.describe import abstract_step
from jaxnn.describe.abstract_step import AbstractStep


class CompiledStep(NamedTuple):
    """A compiled program's own analysis; None: this backend does not say.

    Attributes:
      flops: floating point operations; the body of a loop counts once.
      arguments: bytes of what it is given.
      outputs: bytes of what it returns, where that is not in the memory of an argument.
      temporaries: bytes in between.
      peak: bytes at the worst moment.
    """

    flops: float | None
    arguments: int | None = None
    outputs: int | None = None
    temporaries: int | None = None
    peak: int | None = None


def held(step: AbstractStep) -> list[tuple[str, int]]:
    """(what, bytes) of every kind of tensor that a step holds beside its activations."""
    state, policy = step.state, precision.POLICIES[step.experiment.precision]
    compute, master = (jnp.dtype(x).name for x in policy)
    rows = [(f"parameters, {master}", tree_size(state.params))]
    if compute != master:
        rows = [
            (f"weights of the passes, {compute}", tree_size(step.compute_params)),
            (f"master parameters, {master}", tree_size(state.params)),
        ]
    rows += [
        (f"gradients of the backward pass, {compute}", tree_size(step.compute_params))
    ]
    if compute != master:
        rows += [(f"gradients of the optimizer, {master}", tree_size(state.params))]
    rows += [
        (f"state of {step.experiment.optimizer}", tree_size(state.opt_state)),
        ("running statistics of batch normalization", tree_size(state.batch_stats)),
        (
            f"inputs of the batch, {step.part.inputs.dtype.name}",
            size_of(step.part.inputs),
        ),
    ]
    return [(what, size) for what, size in rows if size]


def compile_forward(step: AbstractStep) -> CompiledStep:
    """The forward pass and the loss, as training computes them, of the rows that are
    computed at once."""
    objective = abstract_step.make_objective(step)
    return _analyze(
        jax.jit(objective).lower(step.compute_params, step.state.batch_stats, step.part)
    )


def compile_step(step: AbstractStep) -> CompiledStep:
    """The whole training step, whose new state takes the memory of the old one."""
    whole = functools.partial(
        train_step.train_step, step.experiment, step.model, step.optimizer
    )
    learning_rates = jax.ShapeDtypeStruct((1,), jnp.float32)
    program = jax.jit(lambda *arguments: whole(*arguments)[:2], donate_argnums=0)
    return _analyze(program.lower(step.state, step.batch, learning_rates))


def _analyze(lowered: Any) -> CompiledStep:
    compiled = lowered.compile()
    costs, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    if memory is None:
        return CompiledStep(costs.get("flops"))
    peak = (
        memory.peak_memory_in_bytes if jax.default_backend() != "cpu" else None
    )  # a CPU's leaves out temporaries
    return CompiledStep(
        costs.get("flops"),
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        peak,
    )


def size_of(array: Any) -> int:
    """Bytes of an array, or of the shape of one."""
    return array.size * array.dtype.itemsize


def tree_size(tree: Any) -> int:
    """Bytes of a pytree's arrays."""
    return sum(map(size_of, jax.tree.leaves(tree)))

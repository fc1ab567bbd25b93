"""Memory of a training step: tensors by purpose, and the compiler's own analysis."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import freezing, precision, train_step
from jaxnn.describe import abstract_step
from jaxnn.describe.abstract_step import AbstractStep


class CompiledStep(NamedTuple):
    """A compiled program's own analysis; None where the backend has none.

    Attributes:
      flops: floating point operations; the body of a loop counts once.
      arguments: bytes of the arguments.
      outputs: bytes of the results that are not in the memory of an argument.
      temporaries: bytes in between.
      peak: largest number of bytes at any moment.
    """

    flops: float | None
    arguments: int | None = None
    outputs: int | None = None
    temporaries: int | None = None
    peak: int | None = None


def held(step: AbstractStep) -> list[tuple[str, int]]:
    """Returns (purpose, bytes) of the tensors that a step holds beside activations."""
    policy = precision.POLICIES[step.experiment.precision]
    compute = jnp.dtype(policy.compute).name
    master = jnp.dtype(policy.master).name
    params = tree_size(step.state.params)
    copies = tree_size(step.compute_params)
    # A frozen parameter has no gradient.
    trained, trained_copies = (
        tree_size(freezing.trained(step.experiment, tree))
        for tree in (step.state.params, step.compute_params)
    )

    # In half precision there are two copies of parameters and gradients.
    if compute == master:
        rows = [
            (f"parameters, {master}", params),
            (f"gradients of the backward pass, {compute}", trained_copies),
        ]
    else:
        rows = [
            (f"weights of the passes, {compute}", copies),
            (f"master parameters, {master}", params),
            (f"gradients of the backward pass, {compute}", trained_copies),
            (f"gradients of the optimizer, {master}", trained),
        ]
    inputs = step.microbatch.inputs
    rows += [
        (f"state of {step.experiment.optimizer}", tree_size(step.state.opt_state)),
        (
            "running statistics of batch normalization",
            tree_size(step.state.batch_stats),
        ),
        (f"inputs of the batch, {inputs.dtype.name}", size_of(inputs)),
    ]
    return [(purpose, size) for purpose, size in rows if size]


def compile_forward(step: AbstractStep) -> CompiledStep:
    """Compiles the forward pass and the loss of one microbatch."""
    objective = abstract_step.make_objective(step)
    arguments = (step.compute_params, step.state.batch_stats, step.microbatch)
    return _analyze(jax.jit(objective).lower(*arguments))


def compile_step(step: AbstractStep) -> CompiledStep:
    """Compiles the whole training step; the new state takes the memory of the old."""
    whole = functools.partial(
        train_step.train_step, step.experiment, step.model, step.optimizer
    )
    learning_rates = jax.ShapeDtypeStruct((1,), jnp.float32)
    # Without the third result, the gradients, as training calls it.
    program = jax.jit(lambda *arguments: whole(*arguments)[:2], donate_argnums=0)
    return _analyze(program.lower(step.state, step.batch, learning_rates))


def _analyze(lowered: Any) -> CompiledStep:
    compiled = lowered.compile()
    costs = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    if memory is None:
        return CompiledStep(costs.get("flops"))
    # A CPU's peak leaves out temporaries.
    is_cpu = jax.default_backend() == "cpu"
    return CompiledStep(
        costs.get("flops"),
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        None if is_cpu else memory.peak_memory_in_bytes,
    )


def size_of(array: Any) -> int:
    """Returns the bytes of an array or of a jax.ShapeDtypeStruct."""
    return array.size * array.dtype.itemsize


def tree_size(tree: Any) -> int:
    """Returns the bytes of a pytree's arrays."""
    return sum(map(size_of, jax.tree.leaves(tree)))

"""Diagnoses training steps where they run, inside the scan. Twin of
torch_ref/diagnosis.py.

What is measured stands in jaxnn/experiment/diagnosis.py. The diagnosis looks at a step
from outside, at the state before and after it: what is trained does not change.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn import activation_calls, layer_outputs, precision, train_step
from jaxnn.experiment.diagnosis import (
    FLAT,
    MEASURED,
    OF_PARAMETERS,
    SMALLEST_NORMAL,
    due_steps,
    layer_of,
)
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import Batch, Model, Params, StepResult, TrainState

Handed = tuple[jax.Array, jax.Array | None]
"""What a layer hands on, [rows, ..., units], and where its activation is flat."""


class Diagnosed(NamedTuple):
    """A training step, some of whose steps are diagnosed.

    Attributes:
      step: (state, batch, learning_rates) -> (state, StepResult, grads).
      measured: the same, with `StepResult.diagnosis` [1 + layers, MEASURED] float32.
      due: step index -> index of the epoch's diagnosed step.
    """

    step: Callable
    measured: Callable
    due: Callable[[jax.Array], jax.Array]


Step = Callable | Diagnosed
"""A training step, with a diagnosis or without one."""


def diagnosed(
    step: Callable,
    experiment: Experiment,
    model: Model,
    layers: Sequence[str],
    plan: Sequence[int],
    axis_name: str | None = None,
) -> Diagnosed:
    """Returns a training step together with its diagnosis.

    Args:
      step: (state, batch, learning_rates) -> (state, StepResult, grads).
      experiment: what is trained.
      model: network.
      layers: rows of the diagnosis after the first.
      plan: steps of each epoch.
      axis_name: mapped axis of the ranks that share the batch, or None.
    """

    def measured(state: TrainState, batch: Batch, learning_rates: jax.Array):
        after, result, grads = step(state, batch, learning_rates)
        diagnosis = table(
            experiment,
            model,
            layers,
            state,
            after.params,
            batch,
            grads,
            result,
            axis_name,
        )
        return after, result._replace(diagnosis=diagnosis), grads

    return Diagnosed(step, measured, due(plan))


def due(plan: Sequence[int]) -> Callable[[jax.Array], jax.Array]:
    """Returns step index -> index of the epoch's diagnosed step.

    Args:
      plan: steps of each epoch.
    """
    steps = due_steps(plan)
    return lambda index: jnp.array(steps, jnp.int32)[index // plan[0]]


def scan(
    run: Diagnosed, batch: Callable, state: TrainState, learning_rates: jax.Array, count
) -> tuple[TrainState, StepResult]:
    """Trains steps of one epoch, all but the one that is due as without a diagnosis.

    A condition within a scan over all steps would cost each of them its share.

    Args:
      run: the step.
      batch: place -> this rank's rows.
      state: before the first step.
      learning_rates: [updates] float32.
      count: number of steps.

    Returns:
      The state, and StepResult of arrays [steps, ...], the diagnosis NaN but where it
      was due.
    """
    shapes = jax.eval_shape(run.measured, state, batch(0), learning_rates)[1]
    known = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), shapes)
    known = known._replace(diagnosis=jnp.full_like(known.diagnosis, jnp.nan))
    # Of a part of an epoch the step may be before it or behind it.
    due = run.due(state.step) - state.step
    due = jnp.where(due < 0, count, jnp.minimum(due, count))

    def plain(place: jax.Array, carry: tuple) -> tuple:
        state, known = carry
        state, result, _ = run.step(state, batch(place), learning_rates)
        result = result._replace(diagnosis=known.diagnosis[place])
        return state, _put(known, place, result)

    def measured(state: TrainState, known: StepResult) -> tuple:
        state, result, _ = run.measured(state, batch(due), learning_rates)
        return state, _put(known, due, result)

    def part(number: jax.Array, carry: tuple) -> tuple:
        # In a loop over the two parts, so that the step is compiled for one of them.
        end = jnp.where(number == 0, due, count)
        carry = lax.fori_loop(number * (due + 1), end, plain, carry)
        is_due = (number == 0) & (due < count)
        return lax.cond(is_due, measured, lambda *same: same, *carry)

    return lax.fori_loop(0, 2, part, (state, known))


def _put(known: StepResult, place: jax.Array, result: StepResult) -> StepResult:
    return jax.tree.map(lambda whole, one: whole.at[place].set(one), known, result)


def table(
    experiment: Experiment,
    model: Model,
    layers: Sequence[str],
    state: TrainState,
    updated: Params,
    batch: Batch,
    grads: Params,
    result: StepResult,
    axis_name: str | None = None,
) -> jax.Array:
    """Returns the diagnosis of a step, [1 + layers, MEASURED] float32.

    Args:
      experiment: what is trained.
      model: network.
      layers: names of the rows after the first.
      state: state before the step.
      updated: parameters after it.
      batch: this rank's rows.
      grads: unscaled gradients of the step.
      result: what it reported.
      axis_name: mapped axis of the ranks that share the batch, or None.
    """
    reference = float32_gradients(experiment, model, state, batch, axis_name)
    flat = [
        trace.flatten(tree)
        for tree in (state.params, updated, grads, reference or grads)
    ]
    # Each tensor is summed once, for its layer and for the network.
    before, after, given, known = flat
    scale = result.loss_scale
    sums = {
        name: sums_of(before[name], after[name], given[name], known[name], scale)
        for name in before
    }
    groups = [list(sums)]
    for layer in layers:
        groups.append([name for name in sums if layer_of(name) == layer])
    rows = [of_parameters([sums[name] for name in names]) for names in groups]
    handed = activations(experiment, model, layers, state, batch, axis_name)
    unknown = jnp.full(len(MEASURED) - OF_PARAMETERS, jnp.nan, jnp.float32)
    found = [unknown, *(handed.get(layer, unknown) for layer in layers)]
    return jnp.concatenate([jnp.stack(rows), jnp.stack(found)], axis=1)


def sums_of(
    before: jax.Array,
    after: jax.Array,
    grad: jax.Array,
    reference: jax.Array,
    loss_scale: jax.Array,
) -> jax.Array:
    """Returns sums over a tensor, [5] float32: squares of gradient, weights and update,
    and the entries of the gradient that are not 0 and those that FP16 loses.

    Args:
      before: the parameter before the step.
      after: after it.
      grad: its unscaled gradient.
      reference: its gradient by a backward pass in float32, or that of the step.
      loss_scale: () scale of the step.
    """
    is_known = reference != 0
    scaled = jnp.abs(grad) * loss_scale.astype(grad.dtype)
    is_lost = is_known & (scaled < SMALLEST_NORMAL)
    arrays = (grad, before, after - before, is_known, is_lost)
    # Products, which a CPU computes ten times as fast as reductions.
    flat = (array.astype(jnp.float32).ravel() for array in arrays)
    return jnp.stack([jnp.vdot(array, array) for array in flat])


def of_parameters(sums: Sequence[jax.Array]) -> jax.Array:
    """Returns what needs no activations, [OF_PARAMETERS] float32, of some parameters.

    Args:
      sums: `sums_of` each.
    """
    gradient, weights, update, known, lost = sum(sums[1:], sums[0])
    ratio = jnp.where(weights > 0, jnp.sqrt(update / weights), jnp.nan)
    return jnp.stack([jnp.sqrt(gradient), jnp.sqrt(weights), ratio, lost / known])


def float32_gradients(
    experiment: Experiment,
    model: Model,
    state: TrainState,
    batch: Batch,
    axis_name: str | None,
) -> Params | None:
    """Returns gradients of the step's rows by a pass in float32; None outside FP16."""
    if experiment.precision != "fp16":
        return None
    _, grads, _ = train_step.gradients(
        experiment,
        model,
        state.params,
        state.batch_stats,
        batch,
        state.step,
        jnp.float32(1),
        axis_name,
    )
    return grads


def watched(
    forward: Callable[[], Any], experiment: Experiment, layers: Sequence[str], rows: int
) -> dict[str, Handed]:
    """Runs a forward pass; returns what each layer hands on.

    Args:
      forward: the pass.
      experiment: names the activation.
      layers: layers of interest.
      rows: rows of the batch.
    """
    is_flat = FLAT.get(experiment.activation, lambda x, y: None)
    handed: dict[str, Handed] = {}
    with layer_outputs.capture(rows) as outputs:

        def note(x: jax.Array, y: jax.Array) -> None:
            # An activation belongs to the layer that ended last.
            layer = next((name for name in reversed(outputs) if name in layers), None)
            if layer and y.shape[:1] == (rows,):
                x, y = (precision.at_least_float32(array) for array in (x, y))
                handed.setdefault(layer, (y, is_flat(x, y)))

        with activation_calls.heard_by(note):
            forward()
    plain: dict[str, Handed] = {
        name: (output, None) for name, output in outputs.items() if name in layers
    }
    return plain | handed


def activations(
    experiment: Experiment,
    model: Model,
    layers: Sequence[str],
    state: TrainState,
    batch: Batch,
    axis_name: str | None,
) -> dict[str, jax.Array]:
    """Returns {layer: [mean, std, dead, saturated]} of a forward pass like the step's.

    Arguments are those of `table`.
    """
    count = experiment.accumulation_steps
    size = len(batch.weights) // count
    compute = precision.POLICIES[experiment.precision].compute
    params, inputs = precision.cast((state.params, batch.inputs), compute)
    batch = batch._replace(inputs=inputs)
    microbatches = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)

    def forward(numbered: tuple[jax.Array, Batch]) -> dict[str, tuple[jax.Array, ...]]:
        number, microbatch = numbered
        objective = functools.partial(
            train_step.objective,
            params,
            state.batch_stats,
            microbatch,
            number,
            experiment=experiment,
            model=model,
            step=state.step,
            rank=lax.axis_index(axis_name) if axis_name else 0,
            world_size=lax.axis_size(axis_name) if axis_name else 1,
            total=jnp.float32(1),
            scale=jnp.float32(1),
            axis_name=axis_name,
            with_activations=False,
        )
        handed = watched(objective, experiment, layers, size)
        return {
            layer: moments(*values, microbatch.weights)
            for layer, values in handed.items()
        }

    parts = lax.map(forward, (jnp.arange(count, dtype=jnp.int32), microbatches))
    return {layer: joined(found, axis_name) for layer, found in parts.items()}


def moments(
    values: jax.Array, flat: jax.Array | None, weights: jax.Array
) -> tuple[jax.Array, ...]:
    """Returns count, mean, squared deviations, flat entries and live rows of units.

    Args:
      values: [rows, ..., units] that a layer hands on.
      flat: [rows, ..., units] bool, or None.
      weights: [rows] float32, 0 for padding.
    """
    is_sample = weights.reshape(-1, *[1] * (values.ndim - 1)) > 0
    is_sample = jnp.broadcast_to(is_sample, values.shape)
    values = values.astype(jnp.float32)
    count = jnp.sum(is_sample, dtype=jnp.float32)
    # A rank may have nothing but padding.
    mean = jnp.sum(jnp.where(is_sample, values, 0)) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.where(is_sample, jnp.square(values - mean), 0))
    if flat is None:
        unknown = jnp.float32(jnp.nan)
        return count, mean, squares, unknown, unknown[None]
    axes = tuple(range(values.ndim - 1))
    flats = jnp.sum(is_sample & flat, dtype=jnp.float32)
    live = jnp.sum(is_sample & ~flat, axes, dtype=jnp.float32)
    return count, mean, squares, flats, live


def joined(parts: tuple[jax.Array, ...], axis_name: str | None) -> jax.Array:
    """Joins the `moments` of microbatches, and of ranks: [mean, std, dead, saturated].

    Args:
      parts: what `moments` returns, each with a leading axis of microbatches.
      axis_name: mapped axis of the ranks that share the batch, or None.
    """
    count, mean, squares, flats, live = parts
    sums = (count.sum(), jnp.sum(count * mean), flats.sum(), live.sum(axis=0))
    total, values, flat, live = train_step.sum_over(sums, axis_name)
    whole = values / total
    # Around the mean of all rows: no difference of large squares.
    spread = jnp.sum(squares + count * jnp.square(mean - whole))
    spread = train_step.sum_over(spread, axis_name)
    dead = jnp.where(jnp.isnan(flat), jnp.nan, jnp.mean(live == 0, dtype=jnp.float32))
    return jnp.stack([whole, jnp.sqrt(spread / total), dead, flat / total])

"""One training step and one evaluation step: pure functions of arrays, on one device or
inside a pmap.

`make_gradients` and `make_update` are the two halves of a step; the judge calls them
apart.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnn import layer_outputs, loss_scaling, losses, precision
from jaxnn.dropout import mask_source
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.loss_scaling import LossScale
from jaxnn.metrics import Metric
from jaxnn.optimizers import Optimizer

Params = Any


class Batch(NamedTuple):
    """This device's rows of a batch.

    Attributes:
      inputs: [rows, ...].
      targets: [rows, ...].
      weights: [rows] float32, 0 for padding and 1 for samples.
    """

    inputs: jax.Array
    targets: jax.Array
    weights: jax.Array


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      params: master parameters, a pytree.
      batch_stats: running statistics of batch normalization, float32; empty without it.
      opt_state: of the optimizer's optax transformation.
      loss_scale: FP16's scaler.
      step: () int32, batches seen, skipped ones counted.
      updates: () int32, updates applied.
    """

    params: Params
    batch_stats: Params
    opt_state: optax.OptState
    loss_scale: LossScale
    step: jax.Array
    updates: jax.Array


class StepResult(NamedTuple):
    """What a step reports.

    Attributes:
      loss: () mean over the global batch, unscaled.
      learning_rate: () float32.
      loss_scale: () float32, the scale that multiplied the loss.
      skipped: () bool, an FP16 overflow left parameters and optimizer as they were.
      exhausted: () bool, it overflowed although the scale could not be lowered any
        more.
      finite: [1 + tensors] bool: the loss, then each gradient in the pytree's order.
    """

    loss: jax.Array
    learning_rate: jax.Array
    loss_scale: jax.Array
    skipped: jax.Array
    exhausted: jax.Array
    finite: jax.Array


def initial_variables(
    model: nn.Module, seed: jax.Array | int, signature: Signature
) -> dict[str, Params]:
    """Fresh float32 variables, before any rounding to the compute format: {"params":
    ..., "batch_stats": ...}."""
    example = jnp.zeros(
        (1, *signature.input_shape), jnp.int32 if signature.num_tokens else jnp.float32
    )
    return {"batch_stats": {}, **model.init(jax.random.key(seed), example)}


def initial_state(
    variables: dict[str, Params], experiment: Experiment, optimizer: Optimizer
) -> TrainState:
    """The state before the first step. Masters start as rounded to the compute format,
    as in DeepSpeed (D5)."""
    policy = precision.POLICIES[experiment.precision]
    params = precision.cast(
        precision.cast(variables["params"], policy.compute), policy.master
    )
    scale = loss_scaling.initial_loss_scale(experiment)
    batch_stats = precision.cast(variables["batch_stats"], policy.master)
    return TrainState(
        params,
        batch_stats,
        optimizer.transform.init(params),
        scale,
        jnp.int32(0),
        jnp.int32(0),
    )


def make_gradients(
    experiment: Experiment,
    model: nn.Module,
    axis_name: str | None = None,
    with_activations: bool = False,
) -> Callable:
    """Returns gradients(params, batch_stats, batch, step, scale) -> (loss, grads,
    batch_stats).

    `params` are in the compute format. `loss` is the mean over the global batch,
    `grads` the gradients of `scale` times that mean, in the compute format, averaged
    over the devices of `axis_name`. With `--accumulation_steps` a device's rows are
    computed in parts, one after the other. `with_activations` adds the outputs of the
    layers, {layer: [rows, ...]} in forward order.
    """
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    parts = experiment.accumulation_steps
    capture = (
        layer_outputs.capture
        if with_activations
        else lambda rows: contextlib.nullcontext({})
    )

    def gradients(
        params: Params,
        batch_stats: Params,
        batch: Batch,
        step: jax.Array,
        scale: jax.Array,
    ):
        rows = batch.weights.shape[0]
        devices, device = (
            (lax.axis_size(axis_name), lax.axis_index(axis_name))
            if axis_name
            else (1, 0)
        )
        total = _sum_over(batch.weights.sum(), axis_name)

        def part_gradients(batch_stats: Params, part: Batch, number: jax.Array | int):
            first_row = (number * devices + device) * (rows // parts)
            masks = mask_source(
                experiment.seed,
                step,
                first_row,
                rows * devices,
                part.weights,
                axis_name,
                experiment.sync_batch_norm,
            )

            def objective(params: Params):
                with capture(len(part.weights)) as activations:
                    outputs, updated = model.apply(
                        {"params": params, "batch_stats": batch_stats},
                        part.inputs,
                        masks,
                        mutable=["batch_stats"],
                    )
                per_example = loss_function(outputs, part.targets)
                weights = part.weights.astype(per_example.dtype)
                mean = jnp.sum(per_example * weights) / total.astype(per_example.dtype)
                others = mean, updated.get("batch_stats", {}), activations
                return mean * devices * scale.astype(mean.dtype), others

            (_, (loss, batch_stats, activations)), grads = jax.value_and_grad(
                objective, has_aux=True
            )(params)
            return activations, loss, grads, batch_stats

        if parts == 1:
            activations, loss, grads, batch_stats = part_gradients(
                batch_stats, batch, 0
            )
        else:
            activations, loss, grads, batch_stats = _accumulate(
                part_gradients, batch_stats, batch, parts
            )
        # As in DeepSpeed, where each rank differentiates its own mean: that is what
        # overflows first.
        grads = jax.tree.map(lambda g: g / devices, grads)
        results = *_sum_over((loss, grads), axis_name), batch_stats
        return (*results, activations) if with_activations else results

    return gradients


def _accumulate(
    part_gradients: Callable, batch_stats: Params, batch: Batch, parts: int
) -> tuple[layer_outputs.Outputs, jax.Array, Params, Params]:
    """Sums of loss and gradients over the parts of a device's rows; statistics go from
    part to part."""
    rows = batch.weights.shape[0] // parts
    split = jax.tree.map(lambda x: x.reshape(parts, rows, *x.shape[1:]), batch)

    def body(carry, part):
        batch_stats, loss, grads = carry
        outputs, more_loss, more_grads, batch_stats = part_gradients(batch_stats, *part)
        return (
            batch_stats,
            loss + more_loss,
            jax.tree.map(jnp.add, grads, more_grads),
        ), outputs

    shapes = jax.eval_shape(
        part_gradients, batch_stats, jax.tree.map(lambda x: x[0], split), 0
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1:3])
    numbers = jnp.arange(parts, dtype=jnp.int32)
    (batch_stats, loss, grads), outputs = lax.scan(
        body, (batch_stats, *zeros), (split, numbers)
    )
    return (
        jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs),
        loss,
        grads,
        batch_stats,
    )


def make_update(optimizer: Optimizer) -> Callable:
    """Returns update(params, opt_state, grads, learning_rate) -> (params, opt_state),
    all in the master format."""

    def update(
        params: Params,
        opt_state: optax.OptState,
        grads: Params,
        learning_rate: jax.Array,
    ):
        direction, opt_state = optimizer.transform.update(grads, opt_state, params)
        return jax.tree.map(
            lambda p, d: p - learning_rate.astype(p.dtype) * d, params, direction
        ), opt_state

    return update


def make_train_step(
    experiment: Experiment,
    model: nn.Module,
    optimizer: Optimizer,
    axis_name: str | None = None,
    with_activations: bool = False,
) -> Callable:
    """Returns train_step(state, batch, learning_rates) -> (state, StepResult, grads).

    `learning_rates` is the whole run's table, [updates] float32. `grads` are unscaled,
    in the master format; a caller that drops them pays nothing for them.
    `with_activations` adds the outputs of the layers, as in `make_gradients`.
    """
    policy = precision.POLICIES[experiment.precision]
    gradients = make_gradients(experiment, model, axis_name, with_activations)
    update = make_update(optimizer)
    may_skip = experiment.precision == "fp16"

    def train_step(state: TrainState, batch: Batch, learning_rates: jax.Array):
        scale = state.loss_scale.scale if may_skip else jnp.float32(1)
        learning_rate = learning_rates[state.updates]
        batch = batch._replace(inputs=precision.cast(batch.inputs, policy.compute))
        loss, grads, batch_stats, *activations = gradients(
            precision.cast(state.params, policy.compute),
            state.batch_stats,
            batch,
            state.step,
            scale,
        )
        grads = unscale(precision.cast(grads, policy.master), scale)
        finite = jnp.stack(
            [jnp.isfinite(x).all() for x in (loss, *jax.tree.leaves(grads))]
        )
        skipped = ~finite[1:].all() if may_skip else jnp.array(False)

        params, opt_state = update(state.params, state.opt_state, grads, learning_rate)
        if may_skip:
            params, opt_state = jax.tree.map(
                lambda old, new: jnp.where(skipped, old, new),
                (state.params, state.opt_state),
                (params, opt_state),
            )
        exhausted = skipped & loss_scaling.is_exhausted(state.loss_scale, experiment)
        loss_scale = state.loss_scale
        if may_skip:
            loss_scale = loss_scaling.update_loss_scale(loss_scale, skipped, experiment)
        state = TrainState(
            params,
            batch_stats,
            opt_state,
            loss_scale,
            state.step + 1,
            state.updates + (~skipped).astype(jnp.int32),
        )
        return (
            state,
            StepResult(loss, learning_rate, scale, skipped, exhausted, finite),
            grads,
            *activations,
        )

    return train_step


def make_eval_step(
    experiment: Experiment, model: nn.Module, metric: Metric
) -> Callable:
    """Returns eval_step(params, batch_stats, batch) -> (weighted sums of loss and
    metric, outputs [rows, ...])."""
    forward = make_forward(experiment, model)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)

    def eval_step(params: Params, batch_stats: Params, batch: Batch):
        outputs = forward(params, batch_stats, batch.inputs)
        values = [
            precision.at_least_float32(f(outputs, batch.targets))
            for f in (loss_function, metric)
        ]
        sums = [jnp.sum(v * batch.weights.astype(v.dtype)) for v in values]
        return jnp.stack([s.astype(jnp.float32) for s in sums]), outputs.astype(
            jnp.float32
        )

    return eval_step


def make_forward(experiment: Experiment, model: nn.Module) -> Callable:
    """Returns forward(params, batch_stats, inputs) -> outputs, in the compute format,
    outside training."""
    policy = precision.POLICIES[experiment.precision]

    def forward(params: Params, batch_stats: Params, inputs: jax.Array) -> jax.Array:
        params, inputs = precision.cast((params, inputs), policy.compute)
        return model.apply({"params": params, "batch_stats": batch_stats}, inputs)

    return forward


def unscale(grads: Params, scale: jax.Array) -> Params:
    """grads / scale, exact for a power of two short of underflow."""
    return jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)


def _sum_over(tree: Any, axis_name: str | None) -> Any:
    """Sums over the devices, in one message for all arrays of a format: on a CPU each
    message waits for all devices."""
    if not axis_name or lax.axis_size(axis_name) == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    summed: dict[int, jax.Array] = {}
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        places = [place for place, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat, restore = ravel_pytree([leaves[place] for place in places])
        summed |= dict(zip(places, restore(lax.psum(flat, axis_name))))
    return jax.tree.unflatten(
        structure, [summed[place] for place in range(len(leaves))]
    )

"""One training step and one evaluation step of a rank. Twin of torch_ref/train_step.py.

Pure functions of arrays. A rank is a device along a mapped axis, or the only device.
Callers bind what does not change with `functools.partial`, as flax's examples do.
`gradients` and `update` are the two halves of `train_step`; the judge replays each on
its own.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxnn import freezing, layer_outputs, loss_scaling, losses, precision
from jaxnn.augmentation import augment
from jaxnn.dropout import mask_source
from jaxnn.experiment import traits
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.freezing import check
from jaxnn.loss_scaling import LossScale
from jaxnn.metrics import Metric
from jaxnn.optimizers import Optimizer
from jaxnn.precision import POLICIES

Params = Any
"""A pytree of arrays: parameters, gradients or running statistics."""


class Model(Protocol):
    """A network that can be run: a flax module, or an object that wraps one."""

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs of `nn.Module.apply`."""
        ...


class Batch(NamedTuple):
    """This rank's rows of a batch.

    Attributes:
      inputs: [rows, ...].
      targets: [rows, ...].
      weights: [rows] float32, 1 for samples and 0 for padding rows.
    """

    inputs: jax.Array
    targets: jax.Array
    weights: jax.Array


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      params: master parameters.
      batch_stats: running statistics of batch normalization, float32; empty without it.
      opt_state: state of the optimizer's optax transformation.
      loss_scale: state of the FP16 loss scaler.
      step: () int32, batches seen, skipped ones included.
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
      skipped: () bool, True if an overflow left parameters and optimizer unchanged.
      exhausted: () bool, True if that was at the smallest loss scale.
      finite: [1 + tensors] bool, of the loss, then of each gradient in the pytree's
        order.
      diagnosis: [1 + layers, MEASURED] float32 by jaxnn/experiment/diagnosis.py; None
        without `--diagnose`.
      line: [2] weight and bias after the step; None unless a line is fitted.
    """

    loss: jax.Array
    learning_rate: jax.Array
    loss_scale: jax.Array
    skipped: jax.Array
    exhausted: jax.Array
    finite: jax.Array
    diagnosis: jax.Array | None = None
    line: jax.Array | None = None


def initial_variables(
    model: nn.Module, seed: jax.Array | int, signature: Signature
) -> dict[str, Params]:
    """Returns fresh float32 {"params": ..., "batch_stats": ...}, not yet rounded."""
    example = jnp.zeros((1, *signature.input_shape), signature.input_dtype)
    return {"batch_stats": {}, **model.init(jax.random.key(seed), example)}


def initial_state(
    variables: dict[str, Params], experiment: Experiment, optimizer: Optimizer
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: as from `initial_variables`.
      experiment: names precision and loss scale.
      optimizer: makes the initial moments.

    Raises:
      UserError: `--freeze` leaves all parameters, or none.
    """
    check(experiment, trace.flatten(variables["params"]))
    policy = POLICIES[experiment.precision]
    # DeepSpeed makes its masters from a model that is in the compute dtype already, so
    # they start rounded to it (MISMATCHES D5).
    rounded = precision.cast(variables["params"], policy.compute)
    params = precision.cast(rounded, policy.master)
    return TrainState(
        params=params,
        batch_stats=precision.cast(variables["batch_stats"], policy.master),
        opt_state=optimizer.transform.init(freezing.trained(experiment, params)),
        loss_scale=loss_scaling.initial_loss_scale(experiment),
        step=jnp.int32(0),
        updates=jnp.int32(0),
    )


def objective(
    params: Params,
    batch_stats: Params,
    microbatch: Batch,
    number: jax.Array | int,
    *,
    experiment: Experiment,
    model: Model,
    step: jax.Array | int,
    rank: jax.Array | int,
    world_size: int,
    total: jax.Array,
    scale: jax.Array,
    axis_name: str | None,
    with_activations: bool,
) -> tuple[jax.Array, tuple[jax.Array, Params, layer_outputs.Outputs]]:
    """Share of a microbatch in the global mean loss, times world size and loss scale.

    Args:
      params: parameters in the compute dtype; the argument to differentiate.
      batch_stats: running statistics before this microbatch.
      microbatch: this rank's rows, inputs in the compute dtype.
      number: index of the microbatch, in the order of the rows.
      experiment: names loss, seed and `accumulation_steps`, the number of microbatches.
      model: network.
      step: batches seen so far.
      rank: index of this rank.
      world_size: number of ranks.
      total: () samples of the global batch.
      scale: () loss scale.
      axis_name: mapped axis of the ranks that share the batch, or None.
      with_activations: True to collect the outputs of the layers.

    Returns:
      The objective, and (unscaled share, running statistics, {layer: output}).
    """
    inputs, targets, weights = microbatch
    size = len(weights)
    # Global rows are ordered by microbatch, then by rank: a mask belongs to a row,
    # whatever the number of ranks.
    first_row = (number * world_size + rank) * size
    masks = mask_source(
        experiment.seed,
        step,
        first_row,
        weights,
        axis_name,
        experiment.sync_batch_norm,
    )
    inputs = augment(experiment, inputs, masks)
    variables = {"params": params, "batch_stats": batch_stats}
    with _watched_layers(size, with_activations) as activations:
        outputs, updated = model.apply(
            variables, inputs, masks, mutable=["batch_stats"]
        )
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    per_example = loss_function(outputs, targets)
    # A loss of another shape would broadcast against the weights without an error.
    chex.assert_equal_shape([per_example, weights])
    weights = weights.astype(per_example.dtype)
    mean = jnp.sum(per_example * weights) / total.astype(per_example.dtype)
    # `gradients` divides by the world size, in the compute dtype, as DeepSpeed does.
    scaled = mean * world_size * scale.astype(mean.dtype)
    return scaled, (mean, updated.get("batch_stats", {}), activations)


def gradients(
    experiment: Experiment,
    model: Model,
    params: Params,
    batch_stats: Params,
    batch: Batch,
    step: jax.Array | int,
    scale: jax.Array,
    axis_name: str | None = None,
    with_activations: bool = False,
) -> tuple:
    """Returns (loss, grads, batch_stats) of the global batch.

    Args:
      experiment: what is trained.
      model: network.
      params: parameters in the compute dtype.
      batch_stats: running statistics before the batch.
      batch: this rank's rows, inputs in the compute dtype.
      step: batches seen so far.
      scale: () loss scale.
      axis_name: mapped axis of the ranks that share the batch, or None.
      with_activations: True to return the outputs of the layers as well,
        {layer: [rows, ...]} in forward order.

    Returns:
      loss: () mean over the global batch, unscaled.
      grads: gradients of `scale` times that mean with respect to the trained
        parameters, in the compute dtype, equal on every rank.
      batch_stats: running statistics after the batch.
    """
    _check_batch(batch, experiment.accumulation_steps)
    world_size = lax.axis_size(axis_name) if axis_name else 1
    share = functools.partial(
        objective,
        experiment=experiment,
        model=model,
        step=step,
        rank=lax.axis_index(axis_name) if axis_name else 0,
        world_size=world_size,
        total=sum_over(batch.weights.sum(), axis_name),
        scale=scale,
        axis_name=axis_name,
        with_activations=with_activations,
    )
    trained = freezing.trained(experiment, params)

    def share_of(trained: Params, *args: Any):
        return share(freezing.merged(params, trained), *args)

    differentiate = jax.value_and_grad(share_of, has_aux=True)

    def microbatch_gradients(
        batch_stats: Params, microbatch: Batch, number: jax.Array | int
    ):
        (_, (loss, batch_stats, activations)), grads = differentiate(
            trained, batch_stats, microbatch, number
        )
        return activations, loss, grads, batch_stats

    # One microbatch needs neither a loop nor a sum that starts from zeros.
    count = experiment.accumulation_steps
    if count == 1:
        results = microbatch_gradients(batch_stats, batch, 0)
    else:
        results = accumulate(microbatch_gradients, batch_stats, batch, count)
    activations, loss, grads, batch_stats = results
    # Each rank of DeepSpeed differentiates its own mean and divides before it sums: in
    # FP16 the gradient of that mean is what overflows first.
    grads = jax.tree.map(lambda g: g / world_size, grads)
    loss, grads = sum_over((loss, grads), axis_name)
    chex.assert_rank(loss, 0)
    chex.assert_trees_all_equal_shapes_and_dtypes(grads, trained)
    results = loss, grads, batch_stats
    return (*results, activations) if with_activations else results


def accumulate(
    microbatch_gradients: Callable, batch_stats: Params, batch: Batch, count: int
) -> tuple[layer_outputs.Outputs, jax.Array, Params, Params]:
    """Sums loss and gradients over the microbatches of a rank's rows.

    In at least float32, rounded once at the end. Many small numbers added up in the
    compute dtype lose far more: 256 microbatches in bfloat16 3 %, as DeepSpeed does by
    default (MISMATCHES D23).

    A patch point: `parity.semantics` replaces it to replay `last_part_only`.

    Args:
      microbatch_gradients: (batch_stats, microbatch, number) -> (activations, loss,
        grads, batch_stats).
      batch_stats: running statistics, passed on from microbatch to microbatch.
      batch: this rank's rows, a multiple of `count`.
      count: number of microbatches.

    Returns:
      (activations, loss, grads, batch_stats) of all rows.
    """
    size = batch.weights.shape[0] // count
    microbatches = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)

    def body(carry, microbatch):
        batch_stats, sums = carry
        outputs, *more, batch_stats = microbatch_gradients(batch_stats, *microbatch)
        sums = jax.tree.map(lambda s, x: s + x.astype(s.dtype), sums, more)
        return (batch_stats, sums), outputs

    first = jax.tree.map(lambda x: x[0], microbatches)
    _, *sums, _ = jax.eval_shape(microbatch_gradients, batch_stats, first, 0)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, sum_dtype(x.dtype)), sums)
    numbers = jnp.arange(count, dtype=jnp.int32)
    (batch_stats, wide), outputs = lax.scan(
        body, (batch_stats, zeros), (microbatches, numbers)
    )
    loss, grads = jax.tree.map(lambda x, like: x.astype(like.dtype), wide, sums)
    outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
    return outputs, loss, grads, batch_stats


def sum_dtype(dtype: np.dtype) -> np.dtype:
    """Returns the dtype in which microbatches of a dtype are summed.

    A patch point: `parity.semantics` replaces it to replay `accumulated_in_half`.
    """
    return dtype if dtype == jnp.float64 else np.dtype(np.float32)


def update(
    optimizer: Optimizer,
    params: Params,
    opt_state: optax.OptState,
    grads: Params,
    learning_rate: jax.Array | np.floating,
) -> tuple[Params, optax.OptState]:
    """Returns (params, opt_state) after one update, all in the master dtype.

    Parameters without a gradient are frozen.
    """
    trained = freezing.part(params, grads)
    direction, opt_state = optimizer.transform.update(
        grads, opt_state, trained, learning_rate=learning_rate
    )

    def move(param, direction):
        if optimizer.rate_inside:
            return param - direction
        return param - learning_rate.astype(param.dtype) * direction

    moved = jax.tree.map(move, trained, direction)
    return freezing.merged(params, moved), opt_state


def train_step(
    experiment: Experiment,
    model: Model,
    optimizer: Optimizer,
    state: TrainState,
    batch: Batch,
    learning_rates: jax.Array,
    axis_name: str | None = None,
    with_activations: bool = False,
) -> tuple:
    """Forward, backward and update; returns (state, StepResult, grads).

    Args:
      experiment: what is trained.
      model: network.
      optimizer: as from `optimizers.OPTIMIZERS`.
      state: state before the step.
      batch: this rank's rows.
      learning_rates: [updates] float32, the schedule of the whole run.
      axis_name: mapped axis of the ranks that share the batch, or None.
      with_activations: True to return the outputs of the layers as well, as
        `gradients` does.

    Returns:
      state: state after the step.
      result: what the step reports.
      grads: unscaled gradients in the master dtype, free for a caller that drops them.
    """
    chex.assert_rank(learning_rates, 1)
    policy = POLICIES[experiment.precision]
    # Only FP16 scales the loss; elsewhere the scale is a constant that XLA folds away.
    may_skip = experiment.precision == "fp16"
    scale = state.loss_scale.scale if may_skip else jnp.float32(1)
    learning_rate = learning_rates[state.updates]

    # Forward and backward, in the compute dtype.
    batch = batch._replace(inputs=precision.cast(batch.inputs, policy.compute))
    params = precision.cast(state.params, policy.compute)
    loss, grads, batch_stats, *activations = gradients(
        experiment,
        model,
        params,
        state.batch_stats,
        batch,
        state.step,
        scale,
        axis_name,
        with_activations,
    )
    grads = unscale(precision.cast(grads, policy.master), scale)
    finite = jnp.stack([jnp.isfinite(x).all() for x in (loss, *jax.tree.leaves(grads))])
    # The gradients decide, not the loss: DeepSpeed looks at nothing else.
    skipped = ~finite[1:].all() if may_skip else jnp.array(False)

    # The update, in the master dtype.
    params, opt_state = update(
        optimizer, state.params, state.opt_state, grads, learning_rate
    )
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
    result = StepResult(
        loss,
        learning_rate,
        scale,
        skipped,
        exhausted,
        finite,
        line=line_of(experiment, params),
    )
    return (state, result, grads, *activations)


def line_of(experiment: Experiment, params: Params) -> jax.Array | None:
    """Returns [2] weight and bias of a fitted line; None in any other experiment."""
    if not traits.fits_line(experiment):
        return None
    weight = params["output"]["kernel"].reshape(-1)
    # There is none under --nouse_bias.
    bias = params["output"].get("bias", jnp.zeros_like(weight))
    return jnp.concatenate([weight, bias])


def eval_step(
    experiment: Experiment,
    model: Model,
    metric: Metric,
    params: Params,
    batch_stats: Params,
    batch: Batch,
) -> tuple[jax.Array, jax.Array]:
    """Returns [2] weighted sums of loss and metric, and outputs [rows, ...]."""
    _check_batch(batch)
    outputs = forward(experiment, model, params, batch_stats, batch.inputs)
    loss_function = losses.build(experiment.loss, experiment.label_smoothing)
    values = [
        precision.at_least_float32(f(outputs, batch.targets))
        for f in (loss_function, metric)
    ]
    chex.assert_equal_shape([*values, batch.weights])
    sums = [jnp.sum(v * batch.weights.astype(v.dtype)) for v in values]
    sums = jnp.stack([s.astype(jnp.float32) for s in sums])
    return sums, outputs.astype(jnp.float32)


def forward(
    experiment: Experiment,
    model: Model,
    params: Params,
    batch_stats: Params,
    inputs: jax.Array,
) -> jax.Array:
    """Returns outputs in the compute dtype, outside training."""
    policy = POLICIES[experiment.precision]
    params, inputs = precision.cast((params, inputs), policy.compute)
    return model.apply({"params": params, "batch_stats": batch_stats}, inputs)


def unscale(grads: Params, scale: jax.Array) -> Params:
    """grads / scale, exact for a power of two short of underflow."""
    return jax.tree.map(lambda g: g / scale.astype(g.dtype), grads)


OF_ITS_OWN = 2**14
"""Entries of an array whose sum is a message of its own."""


def sum_over(tree: Any, axis_name: str | None) -> Any:
    """Sums a pytree over the ranks of a mapped axis; unchanged for one."""
    if not axis_name or lax.axis_size(axis_name) == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    groups: dict[Any, list[int]] = {}
    for place, leaf in enumerate(leaves):
        # On a CPU each message waits for all devices, so that small arrays share one.
        # Of a large one XLA would compute the entries, a product of matrices among
        # them, one by one while it copies them: 100 ms for 512 x 512.
        key = leaf.dtype if leaf.size < OF_ITS_OWN else place
        groups.setdefault(key, []).append(place)
    summed: dict[int, jax.Array] = {}
    for places in groups.values():
        flat, restore = ravel_pytree([leaves[place] for place in places])
        summed |= dict(zip(places, restore(lax.psum(flat, axis_name))))
    return jax.tree.unflatten(
        structure, [summed[place] for place in range(len(leaves))]
    )


def _watched_layers(rows: int, with_activations: bool) -> Any:
    """Returns a context of {layer: output}; it collects nothing unless asked to."""
    if with_activations:
        return layer_outputs.capture(rows)
    return contextlib.nullcontext({})


def _check_batch(batch: Batch, microbatches: int = 1) -> None:
    """Checks shapes while JAX traces, at no cost in the compiled program."""
    chex.assert_rank(batch.weights, 1)
    chex.assert_equal_shape_prefix(batch, 1)
    chex.assert_is_divisible(len(batch.weights), microbatches)

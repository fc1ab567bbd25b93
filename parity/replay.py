"""Re-runs one recorded step in JAX from the recorded state, in its own precision and in
float64.

A step is taken in two phases, each from recorded inputs, so that the fault of one does
not spread into the other: parameters and batch -> loss and gradients; recorded
gradients, moments and parameters -> new moments and parameters.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import models, precision, train_step
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS, Moments
from parity.inputs import Inputs
from parity.kinks import Nudged
from parity.noise import Distances, Tensors
from parity.semantics.switch import Switch, apply, changed_experiment, patched

DeviceTensors = dict[str, jax.Array]
RANKS = "ranks"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Replay:
    """The replayed step of one experiment, compiled once per precision.

    Args:
      experiment: that was recorded.
      data: its data set.
      switches: known differences to replay it under.
      world_size: ranks that recorded it; each is replayed on its own rows, so that one
        rank's overflow is seen.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Dataset,
        switches: Sequence[Switch] = (),
        world_size: int = 1,
    ):
        experiment = changed_experiment(experiment, switches)
        self._experiment, self._data, self._switches = experiment, data, switches
        self.compute = np.dtype(precision.POLICIES[experiment.precision].compute)
        self.may_skip = experiment.precision == "fp16"
        with patched(switches):
            optimizer = OPTIMIZERS[experiment.optimizer](experiment)
            model = Reread(
                models.build(experiment, data.signature), experiment, switches
            )
        update = functools.partial(train_step.update, optimizer)
        update = apply("update", switches, update, experiment)
        self._gradients = jax.jit(
            lambda *args: _gradients(experiment, model, world_size, *args)
        )
        self._nudged_gradients = jax.jit(
            lambda seed, *args: _gradients(
                experiment, Nudged(model, seed, self.compute), world_size, *args
            )
        )
        self._update = jax.jit(lambda *args: _update(optimizer, update, *args))
        self._distances = jax.jit(_distances)

    def inputs(self, number: int, step: Tensors) -> Inputs:
        """What a recorded step starts from; formats as training has them."""
        ids = step["batch/ids"]
        stats = {
            name: array
            for name, array in step.items()
            if name.startswith("batch_stats/")
        }
        compute = {
            f"params/{name}": array
            for name, array in trace.select(step, "params").items()
        }
        compute["inputs"] = _scaled(self._data, self._data.train_inputs[ids])
        master = {
            name: array
            for name, array in step.items()
            if name.split("/")[0] in ("params", "grads", "moments")
        }
        return Inputs(
            stats
            | {name: _cast(array, self.compute) for name, array in compute.items()},
            master,
            self._data.train_targets[ids],
            number,
            int(step["optimizer_step"]),
            step["loss_scale"],
            step["loss_scale"],
            np.float32(1),
            step["learning_rate"],
        )

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """{"activations/LAYER", "loss", "grads/NAME", "updated_batch_stats/NAME"}:
        unscaled, as float64 arrays.

        Args:
          inputs: of the step.
          dtype: to compute in.
        """
        outputs, samples = (
            _to_float64(self.gradients_on_device(inputs, dtype)),
            len(inputs.targets),
        )
        return {
            name: array[:samples] if name.startswith("activations/") else array
            for name, array in outputs.items()
        }

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """{"updated/NAME", "updated_moments/first/NAME", ...} as float64 arrays,
        computed in `dtype`."""
        return _to_float64(self.update_on_device(inputs, dtype))

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """What `gradients` in the compute format differs by from `gradients` in
        float64: name -> distance."""
        return self._between(
            *(
                self.gradients_on_device(inputs, dtype)
                for dtype in (self.compute, FLOAT64)
            )
        )

    def update_rounding(self, inputs: Inputs) -> Distances:
        """What `update` in float32 differs by from `update` in float64: name ->
        distance."""
        return self._between(
            *(self.update_on_device(inputs, dtype) for dtype in (FLOAT32, FLOAT64))
        )

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Returns nudged(seed) -> what `gradients` in float64 changes by, name ->
        distance, when each layer's output moves by about its rounding in the compute
        format."""
        arguments, exact = (
            self._gradient_arguments(inputs, FLOAT64),
            self.gradients_on_device(inputs, FLOAT64),
        )

        def nudged(seed: int) -> Distances:
            with jax.enable_x64(True), patched(self._switches):
                moved = self._nudged_gradients(seed, *arguments)
            return self._between(trace.flatten(moved), exact)

        return nudged

    def gradients_on_device(self, inputs: Inputs, dtype: np.dtype) -> DeviceTensors:
        """As `gradients`, but as the device has them: in `dtype` or wider, activations
        padded with rows of zeros."""
        with jax.enable_x64(dtype == FLOAT64), patched(self._switches):
            return trace.flatten(
                self._gradients(*self._gradient_arguments(inputs, dtype))
            )

    def update_on_device(self, inputs: Inputs, dtype: np.dtype) -> DeviceTensors:
        """As `update`, but as the device has them, in `dtype`."""
        tree = trace.unflatten(
            {name: _cast(array, dtype) for name, array in inputs.master.items()}
        )
        moments = Moments(**{"first": {}, "second": {}, **tree.get("moments", {})})
        with jax.enable_x64(dtype == FLOAT64), patched(self._switches):
            return trace.flatten(
                self._update(
                    tree["params"],
                    moments,
                    np.int32(inputs.updates),
                    tree["grads"],
                    inputs.learning_rate,
                )
            )

    def _between(self, left: DeviceTensors, right: DeviceTensors) -> Distances:
        with jax.enable_x64(True):
            return self._distances(left, right)

    def _gradient_arguments(self, inputs: Inputs, dtype: np.dtype) -> tuple:
        wide = FLOAT64 if dtype == FLOAT64 else FLOAT32
        tree = trace.unflatten(
            {
                name: _cast(array, wide if name.startswith("batch_stats/") else dtype)
                for name, array in inputs.compute.items()
            }
        )
        padding = self._experiment.batch_size - len(inputs.targets)
        values = jax.tree.map(
            lambda x: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), mode="edge"),
            (tree["inputs"], inputs.targets),
        )
        weights = np.pad(np.ones(len(inputs.targets), np.float32), (0, padding))
        batch = train_step.Batch(*values, weights)
        return (
            tree["params"],
            tree.get("batch_stats", {}),
            batch,
            inputs.step,
            inputs.scale,
            inputs.divisor,
            inputs.loss_share,
        )


class Reread(NamedTuple):
    """A model whose parameters are read as switches say.

    Attributes:
      model: to wrap; has `apply` only.
      experiment: of the model.
      switches: those without `params` leave them as they are.
    """

    model: nn.Module
    experiment: Experiment
    switches: Sequence[Switch]

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As `model.apply`, of the changed parameters."""
        for switch in self.switches:
            if switch.params:
                read = {
                    name: switch.params(name, array, self.experiment)
                    for name, array in trace.flatten(variables["params"]).items()
                }
                variables = {**variables, "params": trace.unflatten(read)}
        return self.model.apply(variables, *args, **kwargs)


def _gradients(
    experiment,
    model,
    world_size,
    params,
    batch_stats,
    batch,
    step,
    scale,
    divisor,
    loss_share,
):
    gradients = functools.partial(
        train_step.gradients,
        experiment,
        model,
        axis_name=RANKS if world_size > 1 else None,
        with_activations=True,
    )
    run = (
        _on_ranks(gradients, world_size, experiment.accumulation_steps)
        if world_size > 1
        else gradients
    )
    loss, grads, batch_stats, activations = run(params, batch_stats, batch, step, scale)
    wide = jax.tree.map(precision.at_least_float32, grads)
    return {
        "activations": jax.tree.map(
            lambda rows: _without_padding(rows, batch.weights), activations
        ),
        "loss": loss * loss_share.astype(loss.dtype),
        "grads": train_step.unscale(wide, divisor),
        "updated_batch_stats": batch_stats,
    }


def _on_ranks(gradients, world_size, parts):
    """Each rank has its share of each part of a batch, see `batches.rank_slice`."""

    def run(params, batch_stats, batch, step, scale):
        ranks = jax.tree.map(
            lambda x: _regrouped(
                x.reshape(parts, world_size, -1, *x.shape[1:]), world_size
            ),
            batch,
        )
        mapped = jax.vmap(gradients, (None, None, 0, None, None), axis_name=RANKS)
        *shared, activations = mapped(params, batch_stats, ranks, step, scale)
        shared = jax.tree.map(lambda x: x[0], shared)  # equal on all ranks
        rows = jax.tree.map(
            lambda x: _regrouped(x.reshape(world_size, parts, -1, *x.shape[2:]), parts),
            activations,
        )
        return *shared, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)

    return run


def _regrouped(x: jax.Array, groups: int) -> jax.Array:
    """[a, b, rows, ...] -> [b, a * rows, ...]."""
    return x.swapaxes(0, 1).reshape(groups, -1, *x.shape[3:])


def _without_padding(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Zeros in rows of weight 0."""
    return jnp.where(
        jnp.expand_dims(weights > 0, range(1, rows.ndim)),
        rows,
        jnp.zeros((), rows.dtype),
    )


def _distances(left: DeviceTensors, right: DeviceTensors) -> DeviceTensors:
    """The Euclidean distance of each tensor from its float64 partner."""
    return {
        name: jnp.sqrt(jnp.sum(jnp.square(left[name].astype(exact.dtype) - exact)))
        for name, exact in right.items()
    }


def _update(optimizer, update, params, moments, updates, grads, learning_rate):
    state = optimizer.with_moments(moments, updates)
    params, state = update(params, state, grads, learning_rate)
    return {"updated": params, "updated_moments": optimizer.moments(state)._asdict()}


def _scaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """uint8 images as the training step makes them; everything else as it is."""
    if inputs.dtype != np.uint8:
        return inputs
    return data.scaling.apply(inputs) if data.scaling else inputs.astype(np.float32)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _to_float64(tensors: DeviceTensors) -> Tensors:
    return {name: np.asarray(array, np.float64) for name, array in tensors.items()}

"""Re-runs one recorded step in JAX, in its own precision and in float64.

A step is run in two halves, each from recorded inputs, so that a fault in one does not
spread into the other: parameters and batch -> loss and gradients; recorded gradients,
moments and parameters -> new moments and parameters.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import freezing, models, precision, train_step
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.optimizers import OPTIMIZERS, Moments
from parity.inputs import Inputs
from parity.kinks import NudgedModel, has_jumps, has_kinks
from parity.noise import FLOAT32, FLOAT64, Distances, Tensors
from parity.semantics.switch import Switch, apply, changed_experiment, patched

DeviceTensors = dict[str, jax.Array]

RANKS = "ranks"
"""Name of the mapped axis over the ranks that recorded a step."""

MASTER_KINDS = ("params", "grads", "moments")
"""Kinds of tensors that the optimizer reads."""

QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""XLA's options to compile in four tenths of the time a program that runs slower."""


class Replay:
    """The step of one experiment, compiled once per precision.

    Args:
      experiment: experiment that was recorded.
      data: its data set.
      switches: known differences to replay under.
      world_size: number of ranks that recorded. Each is replayed on its own rows, so
        that an overflow on one rank alone is seen.

    Attributes:
      compute: dtype of the forward and backward pass.
      may_skip: an overflow skips the step (FP16).
      has_kinks: rounding may make a gradient jump.
      has_jumps: rounding may make the output of a layer jump.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Dataset,
        switches: Sequence[Switch] = (),
        world_size: int = 1,
    ):
        experiment = changed_experiment(experiment, switches)
        self._experiment = experiment
        self._data = data
        self._switches = switches
        self.compute = np.dtype(precision.POLICIES[experiment.precision].compute)
        self.may_skip = experiment.precision == "fp16"
        self.has_kinks = has_kinks(experiment)
        self.has_jumps = has_jumps(experiment)
        self._exact = exact_for(self.compute)
        # Registries are patched too, so model and optimizer are built under the
        # switches as well.
        with patched(switches):
            optimizer = OPTIMIZERS[experiment.optimizer](experiment)
            model = models.build(experiment, data.signature)
        model = RereadModel(model, experiment, switches)
        update = functools.partial(train_step.update, optimizer)
        update = apply("update", switches, update, experiment)

        def gradients(*args):
            return _gradients(experiment, model, world_size, *args)

        def nudged_gradients(seed, *args):
            nudged = NudgedModel(model, seed, self.compute)
            return _gradients(experiment, nudged, world_size, *args)

        # A guess is looked at once, or a few times; what is judged at every step.
        options = QUICKLY if switches else None
        self._gradients = jax.jit(gradients, compiler_options=options)
        self._nudged_gradients = jax.jit(nudged_gradients, compiler_options=options)
        self._glance = (
            self._gradients
            if switches
            else jax.jit(gradients, compiler_options=QUICKLY)
        )
        # What of it the outputs do not need XLA leaves out.
        self._forward = jax.jit(
            lambda *args: _without_backward(gradients(*args)),
            compiler_options=QUICKLY,
        )
        self._update = jax.jit(lambda *args: _update(optimizer, update, *args))
        self._distances = jax.jit(_distances)

    def inputs(self, number: int, step: Tensors) -> Inputs:
        """Returns what a recorded step starts from, in the dtypes of training.

        Args:
          number: step index, from 0.
          step: recorded tensors by name.
        """
        ids = step["batch/ids"]
        compute = {
            f"params/{name}": array
            for name, array in trace.select(step, "params").items()
        }
        compute["inputs"] = scaled(self._data, self._data.train_inputs[ids])
        compute = {name: _cast(array, self.compute) for name, array in compute.items()}
        # Running statistics stay float32 in any precision (MISMATCHES D10).
        statistics = _of_kinds(step, ("batch_stats",))
        return Inputs(
            compute=statistics | compute,
            master=_of_kinds(step, MASTER_KINDS),
            targets=self._data.train_targets[ids],
            step=number,
            updates=int(step["optimizer_step"]),
            scale=step["loss_scale"],
            divisor=step["loss_scale"],
            loss_share=np.float32(1),
            learning_rate=step["learning_rate"],
        )

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the forward and backward pass of a step, as float64 arrays.

        Args:
          inputs: what the step starts from.
          dtype: dtype to compute in.

        Returns:
          {"activations/LAYER", "loss", "grads/NAME", "updated_batch_stats/NAME"},
          gradients unscaled.
        """
        return _on_host(self.gradients_on_device(inputs, dtype), len(inputs.targets))

    def glance(self, inputs: Inputs, forward_only: bool = False) -> Tensors:
        """`gradients` in the compute dtype but for rounding, compiled sooner.

        Args:
          inputs: what the step starts from.
          forward_only: leave out "grads/NAME", which is sooner yet.
        """
        program = self._forward if forward_only else self._glance
        arguments = self._gradient_arguments(inputs, self.compute)
        with jax.enable_x64(self.compute == FLOAT64), patched(self._switches):
            outputs = trace.flatten(program(*arguments))
        return _on_host(outputs, len(inputs.targets))

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the optimizer's half of a step, as float64 arrays.

        Args:
          inputs: what the step starts from.
          dtype: dtype to compute in.

        Returns:
          {"updated/NAME", "updated_moments/first/NAME", "updated_moments/second/NAME"}.
        """
        return _to_float64(self.update_on_device(inputs, dtype))

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `gradients` in the compute dtype from exact ones;
        see `exact_for`."""
        rounded = self.gradients_on_device(inputs, self.compute)
        exact = self.gradients_on_device(inputs, self._exact)
        return self._between(rounded, exact)

    def update_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `update` in float32 from float64."""
        rounded = self.update_on_device(inputs, FLOAT32)
        exact = self.update_on_device(inputs, FLOAT64)
        return self._between(rounded, exact)

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Returns nudged(seed) -> distances of `gradients` under moved layer outputs.

        Each layer's output is moved by about its rounding in the compute dtype; all
        else is exact, as in `exact_for`.
        """
        arguments = self._gradient_arguments(inputs, self._exact)
        exact = self.gradients_on_device(inputs, self._exact)

        def nudged(seed: int) -> Distances:
            with jax.enable_x64(self._exact == FLOAT64), patched(self._switches):
                moved = self._nudged_gradients(seed, *arguments)
            return self._between(trace.flatten(moved), exact)

        return nudged

    def gradients_on_device(self, inputs: Inputs, dtype: np.dtype) -> DeviceTensors:
        """`gradients` as the device holds them: in `dtype` or wider, padding zeroed."""
        arguments = self._gradient_arguments(inputs, dtype)
        with jax.enable_x64(dtype == FLOAT64), patched(self._switches):
            return trace.flatten(self._gradients(*arguments))

    def update_on_device(self, inputs: Inputs, dtype: np.dtype) -> DeviceTensors:
        """`update` as the device holds it, in `dtype`."""
        tree = trace.unflatten(
            {name: _cast(array, dtype) for name, array in inputs.master.items()}
        )
        # What is frozen here stays, whatever gradients were recorded of it.
        moments = {
            name: freezing.trained(self._experiment, moment)
            for name, moment in tree.get("moments", {}).items()
        }
        moments = Moments(**{"first": {}, "second": {}, **moments})
        with jax.enable_x64(dtype == FLOAT64), patched(self._switches):
            updated = self._update(
                tree["params"],
                moments,
                np.int32(inputs.updates),
                freezing.trained(self._experiment, tree["grads"]),
                inputs.learning_rate,
            )
        return trace.flatten(updated)

    def _between(self, left: DeviceTensors, right: DeviceTensors) -> Distances:
        # Computed on the device, so that only the distances are copied to the host.
        with jax.enable_x64(True):
            return self._distances(left, right)

    def _gradient_arguments(self, inputs: Inputs, dtype: np.dtype) -> tuple:
        statistics_dtype = FLOAT64 if dtype == FLOAT64 else FLOAT32
        tree = trace.unflatten(
            {
                name: _cast(
                    array,
                    statistics_dtype if name.startswith("batch_stats/") else dtype,
                )
                for name, array in inputs.compute.items()
            }
        )
        return (
            tree["params"],
            tree.get("batch_stats", {}),
            self._padded_batch(tree["inputs"], inputs.targets),
            inputs.step,
            inputs.scale,
            inputs.divisor,
            inputs.loss_share,
        )

    def _padded_batch(self, rows: np.ndarray, targets: np.ndarray) -> train_step.Batch:
        """Pads a batch to full size, so that one compiled program fits every step."""
        samples = len(targets)
        padding = self._experiment.batch_size - samples

        # jit takes arrays of either kind.
        def pad(x: np.ndarray) -> Any:
            # Any row will do, since its weight is 0; the last one is surely finite.
            return np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), mode="edge")

        weights: Any = np.pad(np.ones(samples, np.float32), (0, padding))
        return train_step.Batch(pad(rows), pad(targets), weights)


def exact_for(compute: np.dtype) -> np.dtype:
    """Returns the dtype that counts as exact beside a compute dtype.

    float64, but float32 beside 16 bits: it rounds 2^13 times less than float16, which
    moves no noise unit by more than a thousandth, and takes half as long.
    """
    return FLOAT32 if compute.itemsize == 2 else FLOAT64


class RereadModel(NamedTuple):
    """A model that reads its parameters as switches say.

    Attributes:
      model: model to wrap; only `apply` is provided.
      experiment: experiment of the model.
      switches: switches; those without `params` leave the parameters as they are.
    """

    model: nn.Module
    experiment: Experiment
    switches: Sequence[Switch]

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns `model.apply(...)` on the changed parameters."""
        for switch in self.switches:
            if switch.params:
                flat = trace.flatten(variables["params"])
                read = {
                    name: switch.params(name, array, self.experiment)
                    for name, array in flat.items()
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
    run = functools.partial(
        train_step.gradients,
        experiment,
        model,
        axis_name=RANKS if world_size > 1 else None,
        with_activations=True,
    )
    if world_size > 1:
        run = _on_ranks(run, world_size, experiment.accumulation_steps)
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


def _without_backward(outputs: dict[str, Any]) -> dict[str, Any]:
    return {kind: made for kind, made in outputs.items() if kind != "grads"}


def _on_ranks(gradients, world_size, microbatches):
    """Maps `gradients` over ranks, each on its own rows of every microbatch.

    The global batch is laid out as `batches.rank_slice` cuts it: microbatch by
    microbatch, and within each rank by rank.
    """

    def run(params, batch_stats, batch, step, scale):
        def rows_of_ranks(x):
            split = x.reshape(microbatches, world_size, -1, *x.shape[1:])
            return _regrouped(split, world_size)

        def rows_of_batch(x):
            split = x.reshape(world_size, microbatches, -1, *x.shape[2:])
            return _regrouped(split, microbatches).reshape(-1, *x.shape[2:])

        mapped = jax.vmap(gradients, (None, None, 0, None, None), axis_name=RANKS)
        ranks = jax.tree.map(rows_of_ranks, batch)
        *shared, activations = mapped(params, batch_stats, ranks, step, scale)
        # Loss, gradients and statistics were averaged: equal on all ranks.
        shared = jax.tree.map(lambda x: x[0], shared)
        return *shared, jax.tree.map(rows_of_batch, activations)

    return run


def _regrouped(x: jax.Array, groups: int) -> jax.Array:
    """[a, b, rows, ...] -> [b, a * rows, ...]."""
    return x.swapaxes(0, 1).reshape(groups, -1, *x.shape[3:])


def _without_padding(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Zeroes the rows of weight 0, so that they do not count in a distance."""
    mask = jnp.expand_dims(weights > 0, range(1, rows.ndim))
    return jnp.where(mask, rows, jnp.zeros((), rows.dtype))


def _on_host(outputs: DeviceTensors, samples: int) -> Tensors:
    """Returns float64 arrays, the layers' outputs without the rows of padding."""
    return {
        name: array[:samples] if name.startswith("activations/") else array
        for name, array in _to_float64(outputs).items()
    }


def _distances(left: DeviceTensors, right: DeviceTensors) -> DeviceTensors:
    """Returns the Euclidean distance of each tensor from its partner, in float64."""
    wide = functools.partial(jnp.asarray, dtype=jnp.float64)
    return {
        name: jnp.linalg.norm(wide(left[name]) - wide(exact))
        for name, exact in right.items()
    }


def _update(optimizer, update, params, moments, updates, grads, learning_rate):
    state = optimizer.with_moments(moments, updates)
    params, state = update(params, state, grads, learning_rate)
    return {"updated": params, "updated_moments": optimizer.moments(state)._asdict()}


def scaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """Returns uint8 images as the training step scales them; others unchanged."""
    if inputs.dtype != np.uint8:
        return inputs
    return data.scaling.apply(inputs) if data.scaling else inputs.astype(np.float32)


def _of_kinds(step: Tensors, kinds: Sequence[str]) -> Tensors:
    """The tensors of some kinds, with their full names."""
    return {name: array for name, array in step.items() if name.split("/")[0] in kinds}


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _to_float64(tensors: DeviceTensors) -> Tensors:
    return {name: np.asarray(array, np.float64) for name, array in tensors.items()}

"""Re-runs one recorded step in JAX from the recorded state, in its own precision and in float64.

A step is taken in two phases, each from recorded inputs, so that the fault of one does not
spread into the other: parameters and batch -> loss and gradients; recorded gradients, moments
and parameters -> new moments and parameters.
"""

import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import models, precision, train_step
from jaxnn.experiment import trace
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import Dataset
from jaxnn.optimizers import OPTIMIZERS, Moments

Tensors = dict[str, np.ndarray]


class Inputs(NamedTuple):
    """What one recorded step starts from.

    Attributes:
      compute: {"params/NAME": ..., "batch_stats/NAME": ..., "inputs": ...} as the forward pass sees them: parameters
        and inputs in the compute format, statistics in float32, tokens as integers.
      master: {"params/NAME", "grads/NAME", "moments/first/NAME", ...} as the optimizer sees them.
      targets: [samples, ...].
      step: batches seen before, skipped ones counted.
      updates: updates applied before.
      scale: loss scale.
      learning_rate: float32.
    """

    compute: Tensors
    master: Tensors
    targets: np.ndarray
    step: int
    updates: int
    scale: np.ndarray
    learning_rate: np.ndarray


class Replay:
    """The replayed step of one experiment, compiled once per precision.

    Args:
      experiment: that was recorded.
      data: its data set.
    """

    def __init__(self, experiment: Experiment, data: Dataset):
        self._experiment, self._data = experiment, data
        self.compute = np.dtype(precision.POLICIES[experiment.precision].compute)
        self.may_skip = experiment.precision == "fp16"
        optimizer = OPTIMIZERS[experiment.optimizer](experiment)
        model = models.build(experiment, data.signature)
        self._gradients = jax.jit(lambda *args: _gradients(train_step.make_gradients(experiment, model), *args))
        self._nudged_gradients = jax.jit(lambda seed, *args: _gradients(
            train_step.make_gradients(experiment, Nudged(model, seed, self.compute)), *args))
        self._update = jax.jit(lambda *args: _update(optimizer, *args))

    def inputs(self, number: int, step: Tensors) -> Inputs:
        """What a recorded step starts from; formats as training has them."""
        ids = step["batch/ids"]
        stats = {name: array for name, array in step.items() if name.startswith("batch_stats/")}
        compute = {f"params/{name}": array for name, array in trace.select(step, "params").items()}
        compute["inputs"] = _scaled(self._data, self._data.train_inputs[ids])
        master = {name: array for name, array in step.items()
                  if name.split("/")[0] in ("params", "grads", "moments")}
        return Inputs(
            stats | {name: _cast(array, self.compute) for name, array in compute.items()}, master,
            self._data.train_targets[ids], number, int(step["optimizer_step"]), step["loss_scale"],
            step["learning_rate"])

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """{"loss", "grads/NAME", "updated_batch_stats/NAME"}: unscaled, as float64 arrays, computed in `dtype`."""
        with jax.enable_x64(dtype == np.float64):
            return _to_float64(self._gradients(*self._gradient_arguments(inputs, dtype)))

    def nudged_gradients(self, inputs: Inputs, seed: int) -> Tensors:
        """As `gradients` in float64, with each layer's output moved by about its rounding in the compute format."""
        with jax.enable_x64(True):
            return _to_float64(self._nudged_gradients(seed, *self._gradient_arguments(inputs, np.dtype(np.float64))))

    def _gradient_arguments(self, inputs: Inputs, dtype: np.dtype) -> tuple:
        wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
        tree = trace.unflatten({name: _cast(array, wide if name.startswith("batch_stats/") else dtype)
                                for name, array in inputs.compute.items()})
        padding = self._experiment.batch_size - len(inputs.targets)
        values = jax.tree.map(lambda x: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), mode="edge"),
                              (tree["inputs"], inputs.targets))
        weights = np.pad(np.ones(len(inputs.targets), np.float32), (0, padding))
        batch = train_step.Batch(*values, weights)
        return tree["params"], tree.get("batch_stats", {}), batch, inputs.step, inputs.scale

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """{"updated/NAME", "updated_moments/first/NAME", ...} as float64 arrays, computed in `dtype`."""
        tree = trace.unflatten({name: _cast(array, dtype) for name, array in inputs.master.items()})
        moments = Moments(**{"first": {}, "second": {}, **tree.get("moments", {})})
        with jax.enable_x64(dtype == np.float64):
            return _to_float64(self._update(tree["params"], moments, np.int32(inputs.updates), tree["grads"],
                                            inputs.learning_rate))


class Nudged(NamedTuple):
    """A model whose every layer's output is moved at random by as much as rounding may have moved it.

    Attributes:
      model: to wrap; has `apply` only.
      seed: of the draws.
      compute: the format of the forward pass.
    """

    model: nn.Module
    seed: jax.Array
    compute: np.dtype

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As `model.apply`, with the outputs of layers that hold a kernel, and of norms, and their gradients moved."""
        layers = itertools.count()

        def move(call, args, kwargs, context):
            output = call(*args, **kwargs)
            layer = context.module
            is_rounded = any(layer.has_variable("params", leaf) for leaf in ("kernel", "input_kernel", "scale"))
            if context.method_name != "__call__" or not is_rounded:
                return output
            bias = layer.get_variable("params", "bias") if layer.has_variable("params", "bias") else jnp.zeros((1,))
            bias = jnp.broadcast_to(bias.astype(output.dtype), output.shape)
            key, backward = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), next(layers)))
            return _with_moved_gradient(backward, output + _rounding(key, output, bias, self.compute))

        with nn.intercept_methods(move):
            return self.model.apply(variables, *args, **kwargs)


def _rounding(key: jax.Array, output: jax.Array, bias: jax.Array, compute: np.dtype) -> jax.Array:
    """A draw of the error of x W + b: of rounding the product and the sum to `compute`, each at its own size,
    and of accumulating the product in float32, at the typical size of its parts."""
    stored, accumulated = jax.random.uniform(key, (2, *output.shape), output.dtype, -1, 1)
    exact, bias = jax.lax.stop_gradient((output, bias))
    typical = jnp.sqrt(jnp.mean(jnp.square(exact), axis=0, keepdims=True))
    return (stored * float(jnp.finfo(compute).eps) * (jnp.abs(exact) + jnp.abs(bias))
            + accumulated * float(jnp.finfo(jnp.float32).eps) * typical)


def _with_moved_gradient(key: jax.Array, output: jax.Array) -> jax.Array:
    """The output itself; its gradient is moved so that sums over its n rows change as much as they do when a float32
    sum is taken row after row: by about a third of sqrt(n) ulps a row, for rows of random sign. XLA sums in a tree,
    torch's layer norm for one row after row, which is four times less exact at 500 rows."""
    rows = output.size // output.shape[-1]
    relative = float(jnp.finfo(jnp.float32).eps) * rows**0.5 / 3
    share = 1 + relative * jax.random.uniform(key, output.shape, output.dtype, -1, 1)
    return output * share + jax.lax.stop_gradient(output * (1 - share))


def _gradients(gradients, params, batch_stats, batch, step, scale):
    loss, grads, batch_stats = gradients(params, batch_stats, batch, step, scale)
    wide = jax.tree.map(precision.at_least_float32, grads)
    return {"loss": loss, "grads": train_step.unscale(wide, scale), "updated_batch_stats": batch_stats}


def _update(optimizer, params, moments, updates, grads, learning_rate):
    state = optimizer.with_moments(moments, updates)
    params, state = train_step.make_update(optimizer)(params, state, grads, learning_rate)
    return {"updated": params, "updated_moments": optimizer.moments(state)._asdict()}


def _scaled(data: Dataset, inputs: np.ndarray) -> np.ndarray:
    """uint8 images as the training step makes them; everything else as it is."""
    if inputs.dtype != np.uint8:
        return inputs
    return data.scaling.apply(inputs) if data.scaling else inputs.astype(np.float32)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _to_float64(tree: Any) -> Tensors:
    return {name: np.asarray(array, np.float64) for name, array in trace.flatten(tree).items()}

"""A recorded step, taken again by somebody's network, loss and optimizer."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from ml_dtypes import finfo

from jaxnn.experiment.files.trace import select
from parity.inputs import Inputs
from parity.noise import FLOAT32, FLOAT64, Distances, Tensors, distances
from parity.own.optax_feed import OptaxFeed
from parity.own.passes import Objective, Pass
from parity.own.recording import Ported

COMPUTE = {
    "fp32": FLOAT32,
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
"""Precision of a trace -> dtype of the weights that the forward pass reads."""


class PortReplay:
    """A `tensors.StepReplay` of one step.

    Args:
      ported: the recording, by the port's names.
      number: index of the step.
      objective: loss and gradients of the port.
      feed: the port's optimizer as it is before this step; None if it is not judged.
      modules: modules of the port whose outputs are compared.
    """

    def __init__(
        self,
        ported: Ported,
        number: int,
        objective: Objective,
        feed: OptaxFeed | None,
        modules: Any = (),
    ):
        self._ported = ported
        self._number = number
        self._objective = objective
        self._feed = feed
        self._modules = list(modules)
        self._passes = ported.passes(number)
        meta = ported.meta
        self._weights_in = COMPUTE[meta["precision"]]
        # Under autocast the weights are float32 and the layers round to 16 bits.
        self.compute = COMPUTE[meta.get("autocast") or meta["precision"]]
        self.may_skip = meta["precision"] == "fp16" or meta.get("autocast") == "fp16"
        # Nothing is known of the network.
        self.has_kinks = self.has_jumps = True
        self.has_update = feed is not None
        self._lacking = ported.without_moments(number) if feed else set()

    @property
    def count(self) -> int:
        """Number of forward passes, of all ranks."""
        return len(self._passes)

    def of_pass(self, place: int) -> "PortReplay":
        """Returns the replay of one forward pass alone, as if it were rank 0's."""
        alone = copy.copy(self)
        alone._passes = [self._passes[place]]
        return alone

    def inputs(self, number: int) -> Inputs:
        """Returns what the step starts from."""
        step = self._ported.raw(number)
        leaves = self._ported.leaves(number)
        read = self._ported.weights_read(number)
        params = {f"params/{name}": array for name, array in read.items()}
        grads = self._ported.gradients(number)
        one = np.float32(1)
        return Inputs(
            compute={n: a.astype(self._weights_in) for n, a in params.items()}
            | {f"state/{name}": leaves[name] for name in self._ported.statistics}
            | self._tensors(),
            master={f"params/{name}": leaves[name] for name in self._ported.parameters}
            | {f"grads/{name}": grads[name] for name in self._ported.parameters},
            targets=np.zeros(0),
            step=number,
            updates=int(step["optimizer_step"]),
            scale=self._scale(step),
            divisor=one,
            loss_share=one,
            learning_rate=step["learning_rate"],
        )

    def gradients(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns loss, gradients, activations and statistics, in float64."""
        return self._gradients(inputs, dtype, None)

    def update(self, inputs: Inputs, dtype: np.dtype) -> Tensors:
        """Returns the optimizer's tensors, in float64."""
        assert self._feed, "an update that is not there is not judged"
        params, grads = (select(inputs.master, kind) for kind in ("params", "grads"))
        found = self._feed.update(params, grads, dtype)
        # Of a parameter that no optimizer holds, moments were not recorded.
        lacking = self._lacking
        return {name: array for name, array in found.items() if name not in lacking}

    def gradients_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `gradients` in the compute dtype from float64."""
        inputs = self._moved_as_layers_round(inputs)
        rounded = self.gradients(inputs, self.compute)
        return distances(rounded, self.gradients(inputs, FLOAT64))

    def _moved_as_layers_round(self, inputs: Inputs) -> Inputs:
        """Returns inputs that are as far from the recorded as 16-bit ones would be.

        Under autocast the inputs are float32. Moved by a unit of that, they would be
        rounded to the same 16 bits every time, and all draws be one.
        """
        if self.compute == self._weights_in:
            return inputs
        recorded = self.inputs(self._number).compute
        units = finfo(self.compute).eps / finfo(self._weights_in).eps
        moved = {
            name: recorded[name] + (array - recorded[name]) * np.float32(units)
            for name, array in inputs.compute.items()
            if array.dtype == self._weights_in
        }
        return inputs._replace(compute=inputs.compute | moved)

    def update_rounding(self, inputs: Inputs) -> Distances:
        """Returns name -> distance of `update` in float32 from float64."""
        rounded = self.update(inputs, FLOAT32)
        return distances(rounded, self.update(inputs, FLOAT64))

    def nudging(self, inputs: Inputs) -> Callable[[int], Distances]:
        """Returns seed -> distance of `gradients` from those with moved products."""
        exact = self.gradients(inputs, FLOAT64)

        def draw(seed: int) -> Distances:
            moved = self._gradients(inputs, FLOAT64, (seed, self.compute))
            return distances(moved, exact)

        return draw

    def shapes(self, inputs: Inputs) -> list[dict[str, tuple[int, ...]]]:
        """Returns {module: shape of its output} of each pass."""
        leaves = self._leaves(inputs, self._weights_in)
        found = []
        for one in self._passes:
            _, call, _ = self._objective(leaves, one, np.float32(1), self._weights_in)
            found.append({n: a.shape for n, a in call.activations.items()})
        return found

    def trace(self) -> None:
        """Runs the first forward pass without computing anything."""
        leaves = self._leaves(self.inputs(self._number), self._weights_in)
        self._objective.trace(leaves, self._passes[0], self._weights_in)

    def _gradients(
        self, inputs: Inputs, dtype: np.dtype, nudge: tuple[int, np.dtype] | None
    ) -> Tensors:
        exact = dtype == FLOAT64
        with jax.enable_x64(exact):
            total = _Sum(FLOAT64 if exact else FLOAT32)
            weights_in = FLOAT64 if exact else self._weights_in
            leaves = self._leaves(inputs, weights_in)
            ranks = self._ported.meta["world_size"]
            for place, one in enumerate(self._passes):
                # A rank's loss has its share of the rank's; gradients are divided by
                # the number of ranks when they meet.
                moved = _with_inputs(one, inputs.compute, place)
                moved = moved._replace(weight=one.weight * np.float32(ranks))
                factor = np.asarray(inputs.scale * one.share, total.wide)
                found = self._objective(leaves, moved, factor, weights_in, nudge)
                total.add(found, one.weight, ranks)
                # Ranks have their own statistics; rank 0's were recorded.
                if place % ranks == 0:
                    leaves = leaves | total.state
            return total.tensors(inputs.scale, self._modules, self._ported.trained)

    def _leaves(self, inputs: Inputs, dtype: np.dtype) -> dict[str, Any]:
        params = select(inputs.compute, "params")
        state = select(inputs.compute, "state")
        wide = FLOAT64 if dtype == FLOAT64 else FLOAT32
        return {name: array.astype(dtype) for name, array in params.items()} | {
            name: array.astype(wide) for name, array in state.items()
        }

    def _tensors(self) -> Tensors:
        """Returns the inputs that rounding moves: what is floating."""
        return {
            f"pass/{place}/{name}": array
            for place, one in enumerate(self._passes)
            for name, array in one.inputs.items()
            if array.dtype.kind in "fV"
        }

    def _scale(self, step: Mapping[str, Any]) -> np.float32:
        # At ZeRO stage 0 DeepSpeed does not multiply the loss (MISMATCHES D1).
        if self._ported.meta.get("zero_stage") == 0:
            return np.float32(1)
        return np.float32(step["loss_scale"])


class _Sum:
    """Loss, gradients, activations and statistics over the passes of a step."""

    def __init__(self, wide: np.dtype):
        self.wide = wide
        self.state: dict[str, Any] = {}
        self._loss = 0.0
        self._grads: dict[str, Any] = {}
        self._outputs: list[dict[str, Any]] = []

    def add(self, found: Any, weight: Any, ranks: int) -> None:
        """Adds one pass; gradients in their own dtype, as both frameworks do."""
        loss, call, grads = found
        self._loss += float(loss) * float(weight)
        for name, whole in grads.items():
            grad = whole / ranks if ranks > 1 else whole
            held = self._grads.get(name)
            self._grads[name] = grad if held is None else held + grad
        self._outputs.append(call.activations)
        self.state = dict(call.state)

    def tensors(self, scale: Any, modules: Any, trained: Any) -> Tensors:
        """Returns all of it by the trace's names, in float64."""
        named = {"activations/" + name: self._joined(name) for name in modules}
        named["loss"] = np.asarray(self._loss)
        for name, statistic in self.state.items():
            named[f"updated_batch_stats/{name}"] = statistic
        for name in trained:
            grad = np.asarray(self._grads[name]).astype(self.wide)
            named[f"grads/{name}"] = grad / np.asarray(scale, self.wide)
        return {name: np.asarray(array, np.float64) for name, array in named.items()}

    def _joined(self, module: str) -> np.ndarray:
        arrays = [np.asarray(outputs[module]).ravel() for outputs in self._outputs]
        return np.concatenate(arrays).astype(np.float64)


def _with_inputs(one: Pass, compute: Tensors, place: int) -> Pass:
    """Returns a pass whose floating inputs are those at hand."""
    return one._replace(inputs=one.inputs | select(compute, f"pass/{place}"))

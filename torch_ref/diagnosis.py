"""Diagnoses training steps while they run. Twin of jaxnn/diagnosis.py.

What is measured stands in jaxnn/experiment/diagnosis.py. Masters and gradients are read
through DeepSpeed, whole on every rank at any ZeRO stage; every rank takes part.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from jaxnn.experiment.diagnosis import (
    FLAT,
    MEASURED,
    OF_PARAMETERS,
    SMALLEST_NORMAL,
    due_steps,
    layer_of,
)
from jaxnn.experiment.files.diagnostics import Diagnosis
from jaxnn.experiment.flags.config import Experiment
from torch_ref import (
    activation_calls,
    engine_readers,
    layer_outputs,
    params_io,
    precision,
    train_step,
)
from torch_ref.train_step import Batch, StepResult

Handed = tuple[torch.Tensor, torch.Tensor | None]
"""What a layer hands on, [rows, ..., units], and where its activation is flat."""
Make = Callable[[], nn.Module]
"""Makes the network anew, in float32."""


class Diagnostician:
    """Diagnoses the steps of a run that are due under `--diagnose`.

    Args:
      experiment: what is trained.
      plan: steps of each epoch.
      layers: rows of the diagnosis after the first.
      make: makes the network anew, in float32.
      rank: index of this process.
      world_size: number of ranks.
    """

    def __init__(
        self,
        experiment: Experiment,
        plan: Sequence[int],
        layers: Sequence[str],
        make: Make,
        rank: int,
        world_size: int,
    ):
        self._experiment = experiment
        self._due = set(due_steps(plan)) if experiment.diagnose else set()
        self._layers = layers
        self._make = make
        self._rank = rank
        self._world_size = world_size

    def wants(self, step: int) -> bool:
        """True if this step of the run is to be diagnosed."""
        return step in self._due

    def run(
        self, engine: Any, batch: Batch, step: int, learning_rate: float
    ) -> tuple[StepResult, Diagnosis]:
        """Runs and diagnoses one step; arguments as of `train_step.train_step`."""
        model = engine.module
        # A copy: the step changes the engine's tensors in place.
        before = params_io.to_flax(model, engine_readers.masters(engine))
        reference = self._float32_gradients(model, before, batch, step)
        scale = engine_readers.loss_factor(engine)
        with watched(model, self._experiment, self._layers, batch) as passes:
            result, grads = train_step.train_step(
                self._experiment,
                engine,
                batch,
                step,
                learning_rate,
                self._rank,
                self._world_size,
                with_grads=True,
            )
        after = params_io.to_flax(model, engine_readers.masters(engine))
        gradients = params_io.to_flax(model, grads)
        rows = table(
            self._layers, before, after, gradients, reference or gradients, scale
        )
        handed = activations(passes, self._layers, batch, self._world_size)
        rows[1:, OF_PARAMETERS:] = handed
        return result, Diagnosis(step, rows, result.loss_scale)

    def _float32_gradients(
        self,
        model: nn.Module,
        masters: Mapping[str, np.ndarray],
        batch: Batch,
        step: int,
    ) -> dict[str, np.ndarray] | None:
        """Returns gradients of the step's rows by a pass in float32; None outside
        FP16."""
        experiment = self._experiment
        if experiment.precision != "fp16":
            return None
        network = self._make().to(batch.weights.device)
        params_io.load(network, masters, "masters")
        params_io.load_stats(network, params_io.stats_to_flax(model), "statistics")
        network.train()
        for number in range(experiment.accumulation_steps):
            share = train_step.objective(
                experiment, network, batch, step, self._rank, self._world_size, number
            )
            (share / self._world_size).backward()
        grads = {
            name: train_step.sum_over(param.grad, self._world_size)
            for name, param in network.named_parameters()
            if param.grad is not None
        }
        return params_io.to_flax(network, grads)


def table(
    layers: Sequence[str],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    grads: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    loss_scale: float,
) -> np.ndarray:
    """Returns the diagnosis of a step, [1 + layers, MEASURED] float32, with NaN where
    it needs activations.

    Args:
      layers: names of the rows after the first.
      before: parameters before the step, by name.
      after: after it.
      grads: unscaled gradients of the step; those that it did not use may be missing.
      reference: gradients of a backward pass in float32, or those of the step.
      loss_scale: what multiplied the loss.
    """
    rows = np.full((1 + len(layers), len(MEASURED)), np.nan, np.float32)
    groups = [list(before)]
    for layer in layers:
        groups.append([name for name in before if layer_of(name) == layer])
    for row, names in zip(rows, groups):
        row[:OF_PARAMETERS] = of_parameters(
            names, before, after, grads, reference, loss_scale
        )
    return rows


def of_parameters(
    names: Sequence[str],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    grads: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    loss_scale: float,
) -> list[float]:
    """Returns what needs no activations, [OF_PARAMETERS], of some parameters.

    Arguments are those of `table`.
    """
    weights = norm([before[name] for name in names])
    update = norm([after[name] - before[name] for name in names])
    lost = known = 0
    for name in names:
        if name in grads and name in reference:
            is_known = reference[name] != 0
            scaled = np.abs(grads[name]) * np.float32(loss_scale)
            known += np.sum(is_known)
            lost += np.sum(is_known & (scaled < SMALLEST_NORMAL))
    ratio = update / weights if weights > 0 else np.nan
    gradient = norm([grads[name] for name in names if name in grads])
    return [gradient, weights, ratio, lost / known if known else np.nan]


@contextlib.contextmanager
def watched(
    model: nn.Module, experiment: Experiment, layers: Sequence[str], batch: Batch
) -> Iterator[list[dict[str, Handed]]]:
    """Collects what each layer hands on, in a pass for each microbatch.

    Args:
      model: network.
      experiment: names the activation, and the number of microbatches.
      layers: layers of interest, by flax's names.
      batch: this rank's rows.
    """
    rows = len(batch.weights) // experiment.accumulation_steps
    is_flat = FLAT.get(experiment.activation, lambda x, y: None)
    names = params_io.layer_names(model)
    handed: list[dict[str, Handed]] = []
    passes: list[dict[str, Handed]] = []
    with layer_outputs.capture(model, rows, names) as outputs:

        def note(x: torch.Tensor, y: torch.Tensor) -> None:
            # A second network may run on the side, for the gradients in float32.
            if not outputs:
                return
            handed.extend({} for _ in range(len(outputs) - len(handed)))
            # An activation belongs to the layer that ended last.
            seen = reversed(outputs[-1])
            layer = next((name for name in seen if name in layers), None)
            if layer and y.shape[:1] == (rows,):
                output = outputs[-1][layer]
                x, y = (precision.at_least_float32(a.detach()) for a in (x, y))
                x, y = (_channels_last(array, output) for array in (x, y))
                handed[-1].setdefault(layer, (y.clone(), is_flat(x, y)))

        with activation_calls.heard_by(note):
            yield passes
    handed.extend({} for _ in range(len(outputs) - len(handed)))
    passes.extend(
        {name: (output, None) for name, output in found.items() if name in layers}
        | more
        for found, more in zip(outputs, handed)
    )


def _channels_last(array: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Returns what an activation got or gave in the layout of the layer's output."""
    # `capture` has moved the channels of images to the end.
    if array.shape != output.shape and array.movedim(1, -1).shape == output.shape:
        return array.movedim(1, -1)
    return array


def activations(
    passes: Sequence[Mapping[str, Handed]],
    layers: Sequence[str],
    batch: Batch,
    world_size: int,
) -> np.ndarray:
    """Returns [layers, 4] of mean, std, dead and saturated; NaN where not defined.

    Args:
      passes: what layers hand on, one mapping a microbatch.
      layers: names of the rows.
      batch: this rank's rows.
      world_size: number of ranks.
    """
    weights = batch.weights.chunk(len(passes))
    rows = np.full((len(layers), len(MEASURED) - OF_PARAMETERS), np.nan, np.float32)
    # Each rank has the same layers, and sums over the ranks in the same order.
    for number, layer in enumerate(layers):
        if all(layer in found for found in passes):
            parts = [
                moments(*found[layer], of_pass)
                for found, of_pass in zip(passes, weights)
            ]
            stacked = tuple(map(torch.stack, zip(*parts)))
            rows[number] = joined(stacked, world_size)
    return rows


def moments(
    values: torch.Tensor, flat: torch.Tensor | None, weights: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Returns count, mean, squared deviations, flat entries and live rows of units.

    Args:
      values: [rows, ..., units] that a layer hands on.
      flat: [rows, ..., units] bool, or None.
      weights: [rows] float32, 0 for padding.
    """
    is_sample = weights.reshape(-1, *[1] * (values.dim() - 1)) > 0
    is_sample = is_sample.expand(values.shape)
    values = values.float()
    count = is_sample.sum().float()
    # A rank may have nothing but padding.
    mean = torch.where(is_sample, values, 0).sum() / count.clamp(min=1)
    squares = torch.where(is_sample, (values - mean).square(), 0).sum()
    if flat is None:
        unknown = torch.full((), torch.nan, device=values.device)
        return count, mean, squares, unknown, unknown[None]
    axes = tuple(range(values.dim() - 1))
    flats = (is_sample & flat).sum().float()
    live = (is_sample & ~flat).sum(axes).float()
    return count, mean, squares, flats, live


def joined(parts: tuple[torch.Tensor, ...], world_size: int) -> np.ndarray:
    """Joins the `moments` of microbatches, and of ranks: [mean, std, dead, saturated].

    Args:
      parts: what `moments` returns, each with a leading axis of microbatches.
      world_size: number of ranks.
    """
    count, mean, squares, flats, live = parts
    sums = torch.stack([count.sum(), torch.sum(count * mean), flats.sum()])
    total, values, flat = train_step.sum_over(sums, world_size)
    alive = train_step.sum_over(live.sum(dim=0), world_size)
    whole = values / total
    # Around the mean of all rows: no difference of large squares.
    spread = torch.sum(squares + count * (mean - whole).square())
    spread = train_step.sum_over(spread, world_size)
    dead = torch.where(flat.isnan(), torch.nan, (alive == 0).float().mean())
    found = torch.stack([whole, torch.sqrt(spread / total), dead, flat / total])
    return found.cpu().numpy()


def norm(arrays: Sequence[np.ndarray]) -> float:
    """Returns the Euclidean norm of all numbers of some arrays."""
    # Float64 holds the square of any float32.
    with np.errstate(invalid="ignore"):
        squares = [np.sum(np.square(array, dtype=np.float64)) for array in arrays]
    return float(np.sqrt(sum(squares)))

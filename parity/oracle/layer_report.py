"""Backpropagation of the first batch, layer by layer, beside the tape's gradients."""

from collections.abc import Iterator, Mapping

import numpy as np

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from parity.oracle import backpropagation, train
from parity.oracle.backpropagation import LayerGradients

MOST = 24
"""Entries of an array that is printed whole."""


def lines(experiment: Experiment, data: Dataset) -> Iterator[str]:
    """Yields the loss of the first batch, and each layer's gradients, last layer first.

    These are the error delta = dC/dz, dC/dW, dC/db and dC/dX; with how far dC/dW and
    dC/db lie from what the tape makes of them, over their largest entry.

    Raises:
      UserError: the network has layers without equations.
    """
    state, rows = train.start(experiment, data), train.first_batch(experiment, data)
    loss, layers = backpropagation.by_layer(
        experiment,
        state.params,
        train.scaled(data, np.asarray(data.train_inputs[rows])),
        data.train_targets[rows],
        step=0,
    )
    by_tape = train.gradients(experiment, data, state, rows)
    yield f"first batch: {len(rows)} samples, loss {loss:.9g}"
    for layer in layers:
        yield from _layer(layer, by_tape)


def _layer(layer: LayerGradients, by_tape: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield ""
    yield layer.name
    yield from _array("delta = dC/dz [units, samples]", layer.error)
    yield from _array("dC/dW [inputs, units]", layer.kernel)
    if f"grads/{layer.name}/bias" in by_tape:
        yield from _array("dC/db [units]", layer.bias)
    yield from _array("dC/dX [inputs, samples]", layer.inputs)
    named = {"kernel": layer.kernel, "bias": layer.bias}
    worst = max(
        distance(array, by_tape[f"grads/{layer.name}/{name}"])
        for name, array in named.items()
        if f"grads/{layer.name}/{name}" in by_tape
    )
    yield f"  largest distance from the tape: {worst:.1e}"


def distance(array: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest difference over the largest entry; 0 for equal arrays."""
    return float(np.abs(array - other).max() / (np.abs(other).max() or 1.0))


def _array(name: str, array: np.ndarray) -> Iterator[str]:
    norm = np.linalg.norm(array)
    shape = " x ".join(map(str, array.shape))
    yield f"  {name}: {shape}, norm {norm:.6g}"
    if array.size <= MOST:
        text = np.array2string(array, precision=5, suppress_small=True, prefix="    ")
        yield f"    {text}"

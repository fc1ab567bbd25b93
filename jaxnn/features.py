"""What the layers of a trained network respond to, drawn for networks on images.

Three views of a hierarchy of features (Zeiler & Fergus 2014, "Visualizing and
understanding convolutional networks"): the kernels of the first layer, which are
templates of the image; what each layer makes of one image; and for some units of each
layer the test images that excite them most.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from jaxnn import finished_run, layer_outputs
from jaxnn.experiment.catalogue import IMAGE, TABLE
from jaxnn.experiment.data import samples
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.evaluation import EvaluationSplit
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.results.plots import canvas
from jaxnn.gathering import scale_bytes

Arrays = Mapping[str, np.ndarray]
MOST_SAMPLES = 1024
"""Test images that are looked at."""
UNITS, BEST = 8, 6
"""Units of a layer that are shown, and images of each."""
MOST_LAYERS = 6
"""A deeper network's are thinned."""
CELL = 0.62
"""Inches of an image."""


class Seen(NamedTuple):
    """What a trained network made of some images.

    Attributes:
      images: [samples, height, width, channels], channels 1 or 3, from 0 to 1.
      kernels: [units, height, width, channels] of the first layer.
      outputs: layer -> [samples, ...] before its activation, in forward order.
    """

    images: np.ndarray
    kernels: np.ndarray
    outputs: Arrays


def draw(workdir: str) -> Figure:
    """Draws the features of a finished run of either stack.

    Raises:
      UserError: there is no such run, its data are not at hand or no images, or its
        network is not one of ours.
    """
    seen = look(workdir)
    layers = thinned(list(seen.outputs))
    mapped = [layer for layer in layers if seen.outputs[layer].ndim == 4]
    heights = [2.0, len(mapped) + 2.0, *[UNITS + 1.0] * math.ceil(len(layers) / 2)]
    if not mapped:
        heights.pop(1)
    width = 2 * (BEST + 1) * CELL
    figure = Figure((width, CELL * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    first, *rest = rows[:, 0]
    _draw_kernels(first, seen.kernels)
    if mapped:
        _draw_maps(rest.pop(0), seen, mapped)
    for row, start in zip(rest, range(0, len(layers), 2)):
        parts = row.subfigures(1, 2, squeeze=False)[0]
        for part, layer in zip(parts, layers[start : start + 2]):
            _draw_exciting(part, seen, layer)
    return figure


def look(workdir: str) -> Seen:
    """Applies a finished run's network to its test images."""
    run = finished_run.load(workdir)
    data = load_dataset(run.experiment)
    shape = image_shape(data)
    test = EvaluationSplit("test", data.test_inputs, data.test_targets)
    some = samples.evaluated(data, [test])
    count = min(MOST_SAMPLES, len(data.test_inputs))
    some = some.read(np.arange(count))
    inputs = scale_bytes(jnp.asarray(some.inputs), some.scaling)
    with layer_outputs.capture(count) as outputs:
        run.forward(inputs)
    return Seen(
        images=to_unit(
            canvas.unscaled(data, np.asarray(some.inputs)).reshape(count, *shape)
        ),
        kernels=first_kernels(_params(workdir), list(outputs), shape),
        outputs={name: np.asarray(array) for name, array in outputs.items()},
    )


def _params(workdir: str) -> Arrays:
    return artifacts.read_arrays(pathlib.Path(workdir) / artifacts.PARAMS, "RUN")


def image_shape(data: Dataset) -> tuple[int, int, int]:
    """Returns height, width and channels; a table of n x n features is an image too.

    Raises:
      UserError: the inputs are no images.
    """
    shape: tuple[int, ...] = data.signature.input_shape
    if data.kind == IMAGE and shape[-1] in (1, 3):
        return (shape[0], shape[1], shape[2])
    side = math.isqrt(math.prod(shape))
    # Nothing but its name says that a row of digits was an image.
    if data.kind == TABLE and side > 3 and side * side == math.prod(shape):
        return side, side, 1
    raise UserError(
        f"features: the inputs of RUN are no images (shape {list(shape)}); give a run "
        "on images, such as launch/experiments/cnn_digits.flags"
    )


def to_unit(images: np.ndarray) -> np.ndarray:
    """Returns images with their least value at 0 and their largest at 1."""
    images = images.astype(np.float32)
    low, high = images.min(), images.max()
    return (images - low) / (high - low or 1)


def first_kernels(
    params: Arrays, layers: list[str], shape: tuple[int, int, int]
) -> np.ndarray:
    """Returns the first layer's weights as images [units, height, width, channels].

    Args:
      params: by name.
      layers: their names in forward order.
      shape: of the images.

    Raises:
      UserError: the first layer is neither dense on pixels nor a convolution.
    """
    names = [f"{layer}/kernel" for layer in layers if f"{layer}/kernel" in params]
    kernel: np.ndarray = params[names[0]] if names else np.zeros(())
    if kernel.ndim == 2 and len(kernel) == math.prod(shape):
        return kernel.T.reshape(-1, *shape)
    if kernel.ndim == 4 and kernel.shape[2] in (1, 3):
        return kernel.transpose(3, 0, 1, 2)
    raise UserError(
        "features: the first layer of RUN has no weights over pixels; give a run of an "
        "mlp, a cnn or a resnet"
    )


def thinned(layers: list[str]) -> list[str]:
    """Returns at most `MOST_LAYERS` layers, the first and the last among them."""
    count = min(len(layers), MOST_LAYERS)
    chosen = np.linspace(0, len(layers) - 1, count).round().astype(int)
    return [layers[place] for place in chosen]


def per_unit(outputs: np.ndarray) -> np.ndarray:
    """Returns [samples, units]: of a map its largest entry."""
    return outputs.reshape(len(outputs), -1, outputs.shape[-1]).max(axis=1)


def most_exciting(outputs: np.ndarray, unit: int, count: int) -> np.ndarray:
    """Returns the samples with the largest output of a unit, the largest first.

    Args:
      outputs: [samples, ..., units].
      unit: which.
      count: how many.
    """
    return np.argsort(-per_unit(outputs)[:, unit], kind="stable")[:count]


def _draw_kernels(part: SubFigure, kernels: np.ndarray) -> None:
    part.suptitle("Weights of the first layer, a unit each", fontsize=9)
    shown = kernels[: 2 * BEST]
    for axes, kernel in zip(_row(part, 1, 2 * BEST), shown):
        if kernel.shape[-1] == 3:
            axes.imshow(to_unit(kernel))
        else:
            most = np.abs(kernel).max()
            axes.imshow(kernel[..., 0], cmap="gray", vmin=-most, vmax=most)


def _draw_maps(part: SubFigure, seen: Seen, layers: list[str]) -> None:
    part.suptitle("One test image, and what each layer makes of it", fontsize=9)
    grid = _row(part, len(layers) + 1, 2 * BEST)
    _show(grid[0], seen.images[0])
    for number, layer in enumerate(layers, 1):
        row = grid[number * 2 * BEST : (number + 1) * 2 * BEST]
        _label(row[0], layer)
        for axes, one in zip(row, seen.outputs[layer][0].transpose(2, 0, 1)):
            axes.imshow(one, cmap="gray")


def _draw_exciting(part: SubFigure, seen: Seen, layer: str) -> None:
    outputs = seen.outputs[layer]
    part.suptitle(f"{layer}: images that excite a unit most", fontsize=9)
    units = min(UNITS, outputs.shape[-1])
    grid = _row(part, units, BEST)
    for unit in range(units):
        row = grid[unit * BEST : (unit + 1) * BEST]
        for axes, sample in zip(row, most_exciting(outputs, unit, BEST)):
            _show(axes, seen.images[sample])


def _show(axes: Axes, image: np.ndarray) -> None:
    if image.shape[-1] == 3:
        axes.imshow(image)
    else:
        axes.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)


def _label(axes: Axes, text: str) -> None:
    axes.text(-0.15, 0.5, text, ha="right", va="center", transform=axes.transAxes)


def _row(part: SubFigure, rows: int, columns: int) -> list[Axes]:
    """Returns empty axes without ticks, row by row."""
    grid = part.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in grid:
        axes.set_axis_off()
    return list(grid)

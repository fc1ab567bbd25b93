"""What `--diagnose` measures, and at which steps; the same for both stacks.

One step of each epoch is diagnosed, the last one that has all rows of a batch. A
diagnosis is a table, [1 + layers, MEASURED] float32 with NaN where a number is not
defined; its first row is the whole network.

    gradient_norm    Euclidean norm of the unscaled, unclipped gradient
    weight_norm      Euclidean norm of the master parameters before the step
    update_ratio     norm of the step's update over `weight_norm`; NaN where that is 0
    underflow        share of the gradient's entries that FP16 loses: of those that are
                     not 0 in a backward pass in float32, the ones that, times the loss
                     scale, are below 2^-14 in FP16, its smallest normal number.
                     Under --precision=fp16 a second backward pass in float32 on the
                     same rows says which are not 0; elsewhere the step's own gradient
                     is taken and the scale is 1, what FP16 would lose without one
    activation_mean  mean over rows and units of what the layer hands on: the result of
                     its activation, or its output if none follows
    activation_std   its standard deviation
    dead             share of the layer's units (last axis: channels of an image) whose
                     activation is flat at every row of the step
    saturated        share of all its activations that are flat

An activation is flat where its derivative is below a twentieth of its largest; see
`FLAT`. Of activations without such a region, and of layers that none by `--activation`
follows, `dead` and `saturated` are NaN.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

MEASURED = (
    "gradient_norm",
    "weight_norm",
    "update_ratio",
    "underflow",
    "activation_mean",
    "activation_std",
    "dead",
    "saturated",
)
OF_PARAMETERS = 4
"""The first so many of `MEASURED` need no activations."""
NETWORK = "(network)"
"""Name of the row of the whole network."""
SMALLEST_NORMAL = 2.0**-14
"""Of FP16."""

FLAT: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda x, y: x <= 0,
    "sigmoid": lambda x, y: y * (1 - y) < 0.25 / 20,
    "tanh": lambda x, y: 1 - y * y < 1 / 20,
    "gelu": lambda x, y: x < -2.3,
    "gelu_tanh": lambda x, y: x < -2.3,
}
"""Activation -> (inputs, outputs) -> where it is flat; arrays of either stack. The
GELUs' derivative is a twentieth of its largest at -2.3; that it crosses 0 at -0.75 is
no flat region."""


def due_step(plan: Sequence[int], number: int) -> int:
    """Returns the index in the run of an epoch's diagnosed step.

    Args:
      plan: steps of each epoch; all are equal but the last, which may be shorter.
      number: of the epoch, from 0.
    """
    # The last step of an epoch has the rows that are left over.
    return number * plan[0] + max(min(plan[number], plan[0]) - 2, 0)


def due_steps(plan: Sequence[int]) -> list[int]:
    """Returns the `due_step` of each epoch."""
    return [due_step(plan, number) for number in range(len(plan))]


def layers(parameters: Iterable[str]) -> list[str]:
    """Returns the layers that own parameters, each once, in the given order."""
    return list(dict.fromkeys(layer_of(name) for name in parameters))


def layer_of(parameter: str) -> str:
    """Returns the layer of a parameter "block_0/dense/kernel": "block_0/dense".

    A parameter of the network itself is a layer of its own.
    """
    return parameter.rpartition("/")[0] or parameter

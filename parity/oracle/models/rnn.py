"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014), step by
step on the tape."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.dropout import dropout
from parity.oracle.initializers import INITIALIZERS, Draw, Initializer, normal
from parity.oracle.layers import dense, embed
from parity.oracle.operations import reshape, sigmoid, stack, tanh
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor, lift

State = tuple[Tensor, ...]


class Cell(NamedTuple):
    """One step of a recurrence; its state is (h, ...).

    Attributes:
      gates: number of gate matrices, side by side in the kernels.
      states: number of [batch, hidden] tensors in the state.
      step: ([gate of the input], [gate of the last h], state) -> state, each gate
        [batch, hidden].
    """

    gates: int
    states: int
    step: Callable[[list[Tensor], list[Tensor], State], State]


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    """Recurrent layers with dropout after each, and a Dense head on the last step or on
    each one.

    Args:
      scope, experiment, signature: of the pass.
      x: [batch, steps, features], or [batch, steps] tokens, embedded in hidden_sizes[0]
        features.
    """
    sizes, rates = experiment.hidden_sizes, experiment.dropout_rates
    steps = _embed(scope, signature, sizes[0], x)
    for layer, size in enumerate(sizes):
        steps = _layer(scope, f"layer_{layer}", experiment, size, steps)
        if rates and rates[layer] and scope.masks:  # one mask for all steps at once
            dropped = dropout(stack(steps, axis=1), rates[layer], layer, scope.masks)
            steps = [dropped[:, step] for step in range(len(steps))]
    head = stack(steps, axis=1) if signature.per_step else steps[-1]
    return dense(
        scope,
        "output",
        signature.num_outputs,
        head,
        INITIALIZERS[experiment.initializer],
    )


def _embed(
    scope: Scope, signature: Signature, width: int, x: Tensor | np.ndarray
) -> list[Tensor]:
    """[batch, features] of each step."""
    if not signature.num_tokens:
        x = lift(x)
        return [x[:, step] for step in range(x.shape[1])]
    steps = [
        embed(scope, "embedding", tokens, signature.num_tokens, width, normal(1.0))
        for tokens in np.asarray(x).T
    ]
    scope.keep("embedding", stack(steps, axis=1))
    return steps


def _layer(
    scope: Scope, name: str, experiment: Experiment, size: int, steps: list[Tensor]
) -> list[Tensor]:
    """h of each step, from a state of zeros. With a = x_t W + b and c = h_{t-1} U + d,
    the gates of a and c."""
    cell, start = CELLS[experiment.model], INITIALIZERS[experiment.initializer]
    of_input, bias = _starts(start, size)
    width = cell.gates * size
    w = scope.param(
        f"{name}/input_kernel",
        (steps[0].shape[-1], width),
        _by_gate(of_input, cell.gates),
    )
    u = scope.param(
        f"{name}/recurrent_kernel", (size, width), _by_gate(start.kernel, cell.gates)
    )
    b = scope.param(f"{name}/input_bias", (width,), bias)
    d = scope.param(f"{name}/recurrent_bias", (width,), bias)
    state, outputs = (lift(np.zeros((steps[0].shape[0], size))),) * cell.states, []
    for x in steps:
        state = cell.step(
            _gates(x @ w + b, cell.gates), _gates(state[0] @ u + d, cell.gates), state
        )
        outputs.append(state[0])
    scope.keep(name, stack(outputs, axis=1))
    return outputs


def _starts(start: Initializer, size: int) -> tuple[Draw, Draw]:
    """How input kernel and biases start; under torch_default all as U(-1/sqrt(hidden),
    1/sqrt(hidden))."""
    bias = start.bias(size)
    return (bias if start is INITIALIZERS["torch_default"] else start.kernel), bias


def _by_gate(draw: Draw, gates: int) -> Draw:
    """Draws a [in, gates * out] kernel as `gates` matrices [in, out], so that their
    fans count."""
    return lambda rng, shape: np.concatenate(
        [draw(rng, (shape[0], shape[1] // gates)) for _ in range(gates)], axis=1
    )


def _gates(x: Tensor, count: int) -> list[Tensor]:
    """[batch, count * hidden] -> count of [batch, hidden]."""
    split = reshape(x, (x.shape[0], count, -1))
    return [split[:, gate] for gate in range(count)]


def _rnn(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """h = tanh(a + c)."""
    return (tanh(a[0] + c[0]),)


def _lstm(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """Gates i, f, g, o of a + c; s = sigmoid(f) s + sigmoid(i) tanh(g), h = sigmoid(o)
    tanh(s)."""
    i, f, g, o = (of_input + of_hidden for of_input, of_hidden in zip(a, c))
    s = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(s), s


def _gru(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """r = sigmoid(a_r + c_r), z = sigmoid(a_z + c_z), n = tanh(a_n + r c_n), h = (1 -
    z) n + z h."""
    r, z = sigmoid(a[0] + c[0]), sigmoid(a[1] + c[1])
    n = tanh(a[2] + r * c[2])
    return ((1.0 - z) * n + z * state[0],)


CELLS: dict[str, Cell] = {
    "rnn": Cell(1, 1, _rnn),
    "lstm": Cell(4, 2, _lstm),
    "gru": Cell(3, 1, _gru),
}

"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014).

The recurrence is unrolled on the tape, one node per operation and time step.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from parity.oracle.dropout import dropout
from parity.oracle.initializers import INITIALIZERS, Draw, normal
from parity.oracle.layers import dense, embed
from parity.oracle.operations import reshape, sigmoid, stack, tanh
from parity.oracle.scope import Scope
from parity.oracle.tensor import Tensor, lift

State = tuple[Tensor, ...]


class Cell(NamedTuple):
    """One step of a recurrence.

    Attributes:
      gates: number of gate matrices, side by side in the kernels.
      states: number of [batch, hidden] tensors in the state; the first is h.
      step: (gates of the input, gates of the last h, state) -> state; each gate is
        [batch, hidden].
    """

    gates: int
    states: int
    step: Callable[[list[Tensor], list[Tensor], State], State]


def forward(
    scope: Scope, experiment: Experiment, signature: Signature, x: Tensor | np.ndarray
) -> Tensor:
    """Recurrent layers with dropout after each, then a Dense layer `output`.

    Args:
      scope: parameters and masks.
      experiment: model flags.
      signature: shapes of the inputs and outputs.
      x: [batch, steps, features], or [batch, steps] tokens, which are embedded in
        hidden_sizes[0] features.

    Returns:
      [batch, steps, outputs] if the signature is per step, else [batch, outputs] of the
      last step.
    """
    sizes = experiment.hidden_sizes
    rates = experiment.dropout_rates

    steps = _embed(scope, signature, sizes[0], x)
    for layer, size in enumerate(sizes):
        steps = _layer(scope, f"layer_{layer}", experiment, size, steps)
        if rates and rates[layer] and scope.masks:
            # One mask for [batch, steps, hidden]: the bits depend on an element's
            # position in the whole array, as in jaxnn.
            dropped = dropout(stack(steps, axis=1), rates[layer], layer, scope.masks)
            steps = [dropped[:, step] for step in range(len(steps))]

    head = stack(steps, axis=1) if signature.per_step else steps[-1]
    initializer = INITIALIZERS[experiment.initializer]
    return dense(scope, "output", signature.num_outputs, head, initializer)


def _embed(
    scope: Scope, signature: Signature, width: int, x: Tensor | np.ndarray
) -> list[Tensor]:
    """Returns the [batch, features] inputs of each step."""
    if not signature.num_tokens:
        x = lift(x)
        return [x[:, step] for step in range(x.shape[1])]

    # N(0, 1) is the default of torch.nn.Embedding, whatever `--initializer` says.
    steps = [
        embed(scope, "embedding", tokens, signature.num_tokens, width, normal(1.0))
        for tokens in np.asarray(x).T
    ]
    scope.keep("embedding", stack(steps, axis=1))
    return steps


def _layer(
    scope: Scope, name: str, experiment: Experiment, size: int, steps: list[Tensor]
) -> list[Tensor]:
    """Returns h of each step, [batch, size], starting from a state of zeros.

    The cell is given the gates of x_t W + b and of h_{t-1} U + d.
    """
    cell = CELLS[experiment.model]
    input_draw, recurrent_draw, bias_draw = _draws(experiment.initializer, size)
    batch, features = steps[0].shape
    width = cell.gates * size

    w = scope.param(
        f"{name}/input_kernel", (features, width), _by_gate(input_draw, cell.gates)
    )
    u = scope.param(
        f"{name}/recurrent_kernel", (size, width), _by_gate(recurrent_draw, cell.gates)
    )
    # Two biases, as in torch; flax's LSTM has one, and a step on the sum of two is
    # twice as large (MISMATCHES L3).
    b = scope.param(f"{name}/input_bias", (width,), bias_draw)
    d = scope.param(f"{name}/recurrent_bias", (width,), bias_draw)

    zeros = lift(np.zeros((batch, size)))
    state = (zeros,) * cell.states
    outputs = []
    for x in steps:
        input_gates = _gates(x @ w + b, cell.gates)
        recurrent_gates = _gates(state[0] @ u + d, cell.gates)
        state = cell.step(input_gates, recurrent_gates, state)
        outputs.append(state[0])

    scope.keep(name, stack(outputs, axis=1))
    return outputs


def _draws(name: str, size: int) -> tuple[Draw, Draw, Draw]:
    """Returns the distributions of input kernel, recurrent kernel and biases."""
    initializer = INITIALIZERS[name]
    bias = initializer.bias(size)
    if name == "torch_default":
        # torch.nn.RNNBase.reset_parameters draws every parameter, the input kernel too,
        # from U(-1/sqrt(hidden), 1/sqrt(hidden)).
        return bias, initializer.kernel, bias
    return initializer.kernel, initializer.kernel, bias


def _by_gate(draw: Draw, gates: int) -> Draw:
    """Draws a [in, gates * out] kernel as `gates` matrices [in, out]."""

    # Drawn as a whole, the kernel would have the fan_out of all gates together.
    def draw_gates(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        gate = (shape[0], shape[1] // gates)
        return np.concatenate([draw(rng, gate) for _ in range(gates)], axis=1)

    return draw_gates


def _gates(x: Tensor, count: int) -> list[Tensor]:
    """Splits [batch, count * hidden] into `count` tensors [batch, hidden]."""
    split = reshape(x, (x.shape[0], count, -1))
    return [split[:, gate] for gate in range(count)]


# Steps of the cells: a are the gates of the input, c those of the last h.


def _rnn(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """h = tanh(a + c)."""
    return (tanh(a[0] + c[0]),)


def _lstm(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """s = sigmoid(f) s + sigmoid(i) tanh(g), h = sigmoid(o) tanh(s)."""
    # torch's order of gates.
    i, f, g, o = (of_input + of_hidden for of_input, of_hidden in zip(a, c))
    s = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(s), s


def _gru(a: list[Tensor], c: list[Tensor], state: State) -> State:
    """h = (1 - z) n + z h, n = tanh(a_n + r c_n); r and z are sigmoids of a + c."""
    r = sigmoid(a[0] + c[0])
    z = sigmoid(a[1] + c[1])
    # The reset gate acts on h U + d, as in torch. Cho et al. apply it to h instead,
    # before the product with U.
    n = tanh(a[2] + r * c[2])
    return ((1.0 - z) * n + z * state[0],)


# To add a cell: one step above and one row here.
CELLS: dict[str, Cell] = {
    "rnn": Cell(gates=1, states=1, step=_rnn),
    "lstm": Cell(gates=4, states=2, step=_lstm),
    "gru": Cell(gates=3, states=1, step=_gru),
}

"""The recurrences of an Elman RNN, an LSTM and a GRU, with gradients written by hand.

Only what depends on the previous step runs in a loop: the input's share of the gates
comes in ready-made, and the recurrent kernel's gradient is one matrix product over all
steps afterwards. Automatic differentiation would add up that gradient step by step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

State = tuple[jax.Array, ...]


class Cell(NamedTuple):
    """One step of a recurrence, in torch's parametrization; its state is (h, ...).

    Attributes:
      gates: number of gate matrices, side by side in the kernels.
      states: number of [batch, hidden] arrays in the state.
      forward: (from_input, from_hidden, state) -> (state, saved), of [batch, gates *
        hidden] gates before their activations.
      backward: (saved, gradients of the state) -> gradients of (from_input,
        from_hidden, state), where the last leaves out what reaches h through
        from_hidden.
    """

    gates: int
    states: int
    forward: Callable[
        [jax.Array, jax.Array, State], tuple[State, tuple[jax.Array, ...]]
    ]
    backward: Callable[
        [tuple[jax.Array, ...], State], tuple[jax.Array, jax.Array, State]
    ]


def _rnn_forward(from_input, from_hidden, state):
    h = jnp.tanh(from_input + from_hidden)
    return (h,), (h,)


def _rnn_backward(saved, grads):
    (h,), (dh,) = saved, grads
    gates = dh * (1 - h * h)
    return gates, gates, (jnp.zeros_like(h),)


def _lstm_forward(from_input, from_hidden, state):
    _, c = state
    i, f, g, o = jnp.split(from_input + from_hidden, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    new_c = f * c + i * g
    squashed = jnp.tanh(new_c)
    return (o * squashed, new_c), (i, f, g, o, c, squashed)


def _lstm_backward(saved, grads):
    (i, f, g, o, c, squashed), (dh, dc) = saved, grads
    dc = dc + dh * o * (1 - squashed * squashed)
    gates = jnp.concatenate(
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g * g),
            dh * squashed * o * (1 - o),
        ],
        axis=-1,
    )
    return gates, gates, (jnp.zeros_like(dh), dc * f)


def _gru_forward(from_input, from_hidden, state):
    (h,) = state
    input_r, input_z, input_n = jnp.split(from_input, 3, axis=-1)
    hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, axis=-1)
    r, z = jax.nn.sigmoid(input_r + hidden_r), jax.nn.sigmoid(input_z + hidden_z)
    n = jnp.tanh(input_n + r * hidden_n)
    return ((1 - z) * n + z * h,), (r, z, n, hidden_n, h)


def _gru_backward(saved, grads):
    (r, z, n, hidden_n, h), (dh,) = saved, grads
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * hidden_n * r * (1 - r)
    return (
        jnp.concatenate([dr, dz, dn], axis=-1),
        jnp.concatenate([dr, dz, dn * r], axis=-1),
        (dh * z,),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(
    cell: Cell, from_input: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """Runs a cell over the steps, from a state of zeros.

    Args:
      cell: one of `CELLS`.
      from_input: [steps, batch, gates * hidden], the inputs' share of the gates.
      kernel: [hidden, gates * hidden], recurrent.
      bias: [gates * hidden], added to h @ kernel.

    Returns:
      [steps, batch, hidden] h after each step.
    """
    return _forward(cell, from_input, kernel, bias)[0]


def _forward(cell, from_input, kernel, bias):
    def step(state, gates):
        state, saved = cell.forward(gates, state[0] @ kernel + bias[None], state)
        return state, (state[0], saved)

    start = jnp.zeros((from_input.shape[1], kernel.shape[0]), from_input.dtype)
    _, (outputs, saved) = lax.scan(step, (start,) * cell.states, from_input)
    return outputs, (outputs, saved, kernel)


def _backward(cell, residuals, grads):
    outputs, saved, kernel = residuals
    kernel = _transpose(kernel)

    def step(state, inputs):
        saved, grad = inputs
        from_input, from_hidden, state = cell.backward(
            saved, (state[0] + grad, *state[1:])
        )
        # Elsewhere than in the GRU both gradients are one array, stored once.
        gates = (
            (from_input,) if from_input is from_hidden else (from_input, from_hidden)
        )
        return (state[0] + from_hidden @ kernel, *state[1:]), gates

    start = jnp.zeros_like(outputs[0])
    _, gates = lax.scan(step, (start,) * cell.states, (saved, grads), reverse=True)
    return gates[0], _kernel_gradient(outputs, gates[-1]), gates[-1].sum((0, 1))


def _kernel_gradient(outputs: jax.Array, gates: jax.Array) -> jax.Array:
    """The sum over steps and batch of h_{t-1}^T gates_t, as one product."""
    before = jnp.concatenate([jnp.zeros_like(outputs[:1]), outputs[:-1]])
    return _transpose(before.reshape(-1, before.shape[-1])) @ gates.reshape(
        -1, gates.shape[-1]
    )


def _transpose(x: jax.Array) -> jax.Array:
    """x^T in memory: XLA's products of a transposed operand are slower on a CPU than
    the copy."""
    return lax.optimization_barrier(x.T)


recur.defvjp(_forward, _backward)

CELLS: dict[str, Cell] = {
    "rnn": Cell(1, 1, _rnn_forward, _rnn_backward),
    "lstm": Cell(4, 2, _lstm_forward, _lstm_backward),
    "gru": Cell(3, 1, _gru_forward, _gru_backward),
}

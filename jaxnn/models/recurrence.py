"""The recurrences of an Elman RNN, an LSTM and a GRU, with gradients written by hand.

Only what depends on the previous step runs in a loop: the inputs' share of the gates
comes ready-made, and the gradient of the recurrent kernel is one matrix product over
all steps afterwards. Automatic differentiation would add that gradient up step by step.

torch_ref has no twin of this file: there the recurrences are torch's own kernels.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxnn.models import products

State = tuple[Array, ...]


class Cell(NamedTuple):
    """One step of a recurrence in torch's parametrization, forward and backward.

    The state is (h, ...), each [batch, hidden]. Gates are [batch, gates * hidden],
    before their activations.

    Attributes:
      gates: number of gate matrices, side by side in the kernels.
      states: number of arrays in the state.
      forward: (from_input, from_hidden, state) -> (state, saved).
      backward: (saved, gradients of the state) -> gradients of (from_input,
        from_hidden, state), without what reaches h through from_hidden.
      adds_inputs: True if every gate sees from_input + from_hidden alone, so that both
        biases have the same gradient.
    """

    gates: int
    states: int
    forward: Callable[[Array, Array, State], tuple[State, tuple[Array, ...]]]
    backward: Callable[[tuple[Array, ...], State], tuple[Array, Array, State]]
    adds_inputs: bool = True


# In all three cells a gate's derivative is written by its output, which is what the
# forward pass saves: tanh' = 1 - tanh^2, s' = s (1 - s).


def _rnn_forward(from_input, from_hidden, state):
    h = jnp.tanh(from_input + from_hidden)
    return (h,), (h,)


def _rnn_backward(saved, grads):
    (h,) = saved
    (dh,) = grads
    gates = dh * (1 - h * h)
    return gates, gates, (jnp.zeros_like(h),)


def _lstm_forward(from_input, from_hidden, state):
    _, c = state
    # torch's order of the gates (MISMATCHES L3).
    i, f, g, o = jnp.split(from_input + from_hidden, 4, axis=-1)
    i = jax.nn.sigmoid(i)
    f = jax.nn.sigmoid(f)
    g = jnp.tanh(g)
    o = jax.nn.sigmoid(o)
    new_c = f * c + i * g
    squashed = jnp.tanh(new_c)
    return (o * squashed, new_c), (i, f, g, o, c, squashed)


def _lstm_backward(saved, grads):
    i, f, g, o, c, squashed = saved
    dh, dc = grads
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
    r = jax.nn.sigmoid(input_r + hidden_r)
    z = jax.nn.sigmoid(input_z + hidden_z)
    # The reset gate multiplies U h + d, as in cuDNN and torch; Cho et al. 2014 reset h
    # before the product.
    n = jnp.tanh(input_n + r * hidden_n)
    return ((1 - z) * n + z * h,), (r, z, n, hidden_n, h)


def _gru_backward(saved, grads):
    r, z, n, hidden_n, h = saved
    (dh,) = grads
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * hidden_n * r * (1 - r)
    from_input = jnp.concatenate([dr, dz, dn], axis=-1)
    from_hidden = jnp.concatenate([dr, dz, dn * r], axis=-1)
    return from_input, from_hidden, (dh * z,)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(cell: Cell, from_input: Array, kernel: Array, bias: Array) -> Array:
    """Runs a cell over the steps, from a state of zeros.

    Args:
      cell: one of `CELLS`.
      from_input: [steps, batch, gates * hidden], the inputs' share of the gates.
      kernel: [hidden, gates * hidden], recurrent.
      bias: [gates * hidden], added to h @ kernel.

    Returns:
      [steps, batch, hidden] h after each step.
    """
    outputs, _ = _forward(cell, from_input, kernel, bias)
    return outputs


def _forward(cell, from_input, kernel, bias):
    steps, batch, width = from_input.shape
    hidden = width // cell.gates
    chex.assert_shape(kernel, (hidden, cell.gates * hidden))
    chex.assert_shape(bias, (width,))
    chex.assert_trees_all_equal_dtypes(from_input, kernel, bias)

    def step(state, gates):
        from_hidden = state[0] @ kernel + bias[None]
        state, saved = cell.forward(gates, from_hidden, state)
        return state, (state[0], saved)

    start = jnp.zeros((batch, hidden), from_input.dtype)
    _, (outputs, saved) = lax.scan(step, (start,) * cell.states, from_input)
    chex.assert_shape(outputs, (steps, batch, hidden))
    return outputs, (outputs, saved, kernel)


def _backward(cell, residuals, grads):
    outputs, saved, kernel = residuals
    kernel = _transpose(kernel)

    def step(state, inputs):
        saved, grad = inputs
        # h has two uses: as the output of its step and in the next one.
        state = (state[0] + grad, *state[1:])
        from_input, from_hidden, state = cell.backward(saved, state)
        # Except in the GRU both gradients are one array, which is stored once.
        is_shared = from_input is from_hidden
        gates = (from_input,) if is_shared else (from_input, from_hidden)
        return (state[0] + from_hidden @ kernel, *state[1:]), gates

    start = jnp.zeros_like(outputs[0])
    _, gates = lax.scan(step, (start,) * cell.states, (saved, grads), reverse=True)
    return gates[0], _kernel_gradient(outputs, gates[-1]), gates[-1].sum((0, 1))


def _kernel_gradient(outputs: Array, gates: Array) -> Array:
    """Sum over steps and batch of h_{t-1}^T gates_t, as one product."""
    before = jnp.concatenate([jnp.zeros_like(outputs[:1]), outputs[:-1]])
    return products.kernel_gradient(before, gates)


def _transpose(x: Array) -> Array:
    """x^T, transposed in memory."""
    # XLA's products of a transposed operand are slower on a CPU than the copy, which
    # the barrier keeps the compiler from folding into the product.
    return lax.optimization_barrier(x.T)


recur.defvjp(_forward, _backward)

CELLS: dict[str, Cell] = {
    "rnn": Cell(1, 1, _rnn_forward, _rnn_backward),
    "lstm": Cell(4, 2, _lstm_forward, _lstm_backward),
    "gru": Cell(3, 1, _gru_forward, _gru_backward, adds_inputs=False),
}

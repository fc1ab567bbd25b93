"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997), GRU (Cho et al. 2014). Twin of
torch_ref/models/rnn.py."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Function, Initializer, torch_default
from jaxnn.models.recurrence import CELLS, recur


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each, and a Dense head on the last step or on
    each one.

    Tokens are embedded in hidden_sizes[0] features, which start as N(0, 1), torch's
    default.

    Attributes:
      cell: "rnn", "lstm" or "gru".
      hidden_sizes: units of each layer.
      num_outputs: width of the head.
      num_tokens: vocabulary of token inputs; 0: real inputs.
      per_step: an output at each step instead of one after the last.
      dropout_rates: one per layer, or empty.
      initializer: how the layers start.
    """

    cell: str
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    num_tokens: int
    per_step: bool
    dropout_rates: tuple[float, ...]
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array, masks: MaskSource | None = None) -> jax.Array:
        """[batch, steps, features] or [batch, steps] tokens -> [batch, num_outputs] or
        [batch, steps, num_outputs]."""
        if self.num_tokens:
            x = nn.Embed(
                self.num_tokens,
                self.hidden_sizes[0],
                embedding_init=nn.initializers.normal(1.0),
                name="embedding",
            )(x)
        for layer, size in enumerate(self.hidden_sizes):
            x = RecurrentLayer(
                self.cell, size, self.initializer, name=f"layer_{layer}"
            )(x)
            x = dropout(
                x,
                self.dropout_rates[layer] if self.dropout_rates else 0.0,
                layer,
                masks,
            )
        return self._head(x if self.per_step else x[:, -1])

    def _head(self, x: jax.Array) -> jax.Array:
        start = self.initializer
        return nn.Dense(
            self.num_outputs,
            kernel_init=start.kernel,
            bias_init=start.bias(x.shape[-1]),
            name="output",
        )(x)


class RecurrentLayer(nn.Module):
    """One recurrent layer, as torch.nn.RNN (tanh), LSTM or GRU define it, from a state
    of zeros.

    With a = x_t W + b (input_kernel, input_bias) and c = h_{t-1} U + d
    (recurrent_kernel, recurrent_bias):

      rnn:  h = tanh(a + c)
      lstm: gates i, f, g, o of a + c; s = sigmoid(f) s + sigmoid(i) tanh(g), h = sigmoid(o) tanh(s)
      gru:  r = sigmoid(a_r + c_r), z = sigmoid(a_z + c_z), n = tanh(a_n + r c_n), h = (1 - z) n + z h

    Each gate's matrix starts as the initializer draws it, on its own; under
    torch_default all four tensors start as U(-1/sqrt(hidden), 1/sqrt(hidden)), as in
    torch.

    Attributes:
      cell: "rnn", "lstm" or "gru".
      size: hidden units.
      initializer: how the kernels and biases start.
    """

    cell: str
    size: int
    initializer: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, steps, features] -> [batch, steps, size]."""
        start, cell = self.initializer, CELLS[self.cell]
        bias = start.bias(self.size)
        of_input = bias if start == torch_default else start.kernel
        width = cell.gates * self.size
        input_kernel = self.param(
            "input_kernel", _by_gate(of_input, cell.gates), (x.shape[-1], width)
        )
        recurrent_kernel = self.param(
            "recurrent_kernel", _by_gate(start.kernel, cell.gates), (self.size, width)
        )
        input_bias = self.param("input_bias", bias, (width,))
        recurrent_bias = self.param("recurrent_bias", bias, (width,))
        x, *params = nn.dtypes.promote_dtype(
            x, input_kernel, recurrent_kernel, input_bias, recurrent_bias
        )
        return self._run(x, *params)

    def _run(self, x, input_kernel, recurrent_kernel, input_bias, recurrent_bias):
        from_input = x.swapaxes(0, 1) @ input_kernel + input_bias[None, None]
        return recur(
            CELLS[self.cell], from_input, recurrent_kernel, recurrent_bias
        ).swapaxes(0, 1)


def _by_gate(kernel: Function, gates: int) -> Function:
    """Draws a [in, gates * out] kernel as `gates` matrices [in, out], so that their
    fans count."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        matrices = jax.vmap(
            lambda key: kernel(key, (shape[0], shape[1] // gates), dtype)
        )(jax.random.split(key, gates))
        return matrices.swapaxes(0, 1).reshape(shape)

    return draw

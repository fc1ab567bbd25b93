"""Elman RNN, LSTM (Hochreiter & Schmidhuber 1997), GRU (Cho et al. 2014).

Twin of torch_ref/models/rnn.py.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import Array

from jaxnn.dropout import MaskSource, dropout
from jaxnn.initializers import Function, Initializer, torch_default
from jaxnn.models.dense import dense
from jaxnn.models.products import product
from jaxnn.models.recurrence import CELLS, recur


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each, and a dense head.

    Tokens are embedded in hidden_sizes[0] features.

    Attributes:
      cell: "rnn" (tanh), "lstm" or "gru".
      hidden_sizes: units of the layers, `layer_0` and so on.
      num_outputs: width of the head.
      num_tokens: size of the vocabulary, or 0 if the inputs are real numbers.
      per_step: True for an output at each step, False for one after the last.
      dropout_rates: one rate per layer, or empty.
      initializer: initial distribution of recurrent layers and head.
    """

    cell: str
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    num_tokens: int
    per_step: bool
    dropout_rates: tuple[float, ...]
    initializer: Initializer

    @nn.compact
    def __call__(self, x: Array, masks: MaskSource | None = None) -> Array:
        """Outputs of each step, or of the last.

        Args:
          x: [batch, steps] tokens or [batch, steps, features].
          masks: training context, or None outside training.

        Returns:
          [batch, steps, num_outputs] if per_step, else [batch, num_outputs].
        """
        if self.num_tokens:
            # N(0, 1) is torch's default.
            start = nn.initializers.normal(1.0)
            x = nn.Embed(
                self.num_tokens,
                self.hidden_sizes[0],
                embedding_init=start,
                name="embedding",
            )(x)
        for layer, size in enumerate(self.hidden_sizes):
            name = f"layer_{layer}"
            x = RecurrentLayer(self.cell, size, self.initializer, name=name)(x)
            rate = self.dropout_rates[layer] if self.dropout_rates else 0.0
            x = dropout(x, rate, layer, masks)
        x = x if self.per_step else x[:, -1]
        return dense(x, self.num_outputs, self.initializer, "output")


class RecurrentLayer(nn.Module):
    """One recurrent layer, as torch.nn.RNN (tanh), LSTM or GRU define it.

    The state starts as zeros. With a = x_t W + b (input_kernel, input_bias) and
    c = h_{t-1} U + d (recurrent_kernel, recurrent_bias):

      rnn:  h = tanh(a + c)
      lstm: gates i, f, g, o of a + c
            s = sigmoid(f) s + sigmoid(i) tanh(g), h = sigmoid(o) tanh(s)
      gru:  r = sigmoid(a_r + c_r), z = sigmoid(a_z + c_z)
            n = tanh(a_n + r c_n), h = (1 - z) n + z h

    Attributes:
      cell: "rnn", "lstm" or "gru".
      size: hidden units.
      initializer: initial distribution of each gate's matrix and of the biases.
    """

    cell: str
    size: int
    initializer: Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[batch, steps, features] -> [batch, steps, size]."""
        cell = CELLS[self.cell]
        width = cell.gates * self.size
        # Under torch_default all four tensors start as U(-1/sqrt(size), 1/sqrt(size)),
        # as in torch: the input kernel by the hidden size too, not by its own fan-in.
        bias = self.initializer.bias(self.size)
        of_input = (
            bias if self.initializer == torch_default else self.initializer.kernel
        )
        input_start = _by_gate(of_input, cell.gates)
        recurrent_start = _by_gate(self.initializer.kernel, cell.gates)

        params = (
            self.param("input_kernel", input_start, (x.shape[-1], width)),
            self.param("recurrent_kernel", recurrent_start, (self.size, width)),
            self.param("input_bias", bias, (width,)),
            self.param("recurrent_bias", bias, (width,)),
        )
        x, input_kernel, recurrent_kernel, input_bias, recurrent_bias = promote_dtype(
            x, *params
        )

        # The scan is over the first axis.
        from_input = product(x.swapaxes(0, 1), input_kernel) + input_bias[None, None]
        outputs = recur(cell, from_input, recurrent_kernel, recurrent_bias)
        # custom_vjp declares the type, which functools.partial hides.
        return cast(Array, outputs).swapaxes(0, 1)


def _by_gate(kernel: Function, gates: int) -> Function:
    """Draws a [in, gates * out] kernel as `gates` matrices [in, out]."""

    # Drawn at once, the fans would count all gates as outputs.
    def draw(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        of_gate = (shape[0], shape[1] // gates)
        keys = jax.random.split(key, gates)
        matrices = jax.vmap(lambda key: kernel(key, of_gate, dtype))(keys)
        return matrices.swapaxes(0, 1).reshape(shape)

    return draw

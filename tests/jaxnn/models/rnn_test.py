"""Tests of jaxnn/models/rnn.py and jaxnn/models/recurrence.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from jax.test_util import check_grads

from jaxnn.dropout import dropout, mask_source
from jaxnn.experiment.files import trace
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.recurrence import CELLS, recur
from jaxnn.models.rnn import Recurrent, RecurrentLayer

BATCH, STEPS, FEATURES, HIDDEN = 3, 5, 2, (4, 4)
TORCH = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
LAYER = {
    "input_kernel": "weight_ih",
    "recurrent_kernel": "weight_hh",
    "input_bias": "bias_ih",
    "recurrent_bias": "bias_hh",
}
X = np.random.default_rng(0).standard_normal((BATCH, STEPS, FEATURES))
TOKENS = np.random.default_rng(1).integers(0, 7, (BATCH, STEPS)).astype(np.int32)


def network(
    cell,
    hidden_sizes=HIDDEN,
    num_tokens=0,
    per_step=False,
    dropout_rates=(),
    initializer="torch_default",
):
    return Recurrent(
        cell,
        hidden_sizes,
        2,
        num_tokens,
        per_step,
        dropout_rates,
        INITIALIZERS[initializer],
    )


def shapes(model, tokens=False):
    return jax.eval_shape(
        model.init, jax.random.key(0), TOKENS if tokens else X.astype(np.float32)
    )["params"]


def start(model, tokens=False):
    """Parameters within 1/2, drawn without compiling anything."""
    draw = np.random.default_rng(3)
    return jax.tree.map(
        lambda p: draw.uniform(-0.5, 0.5, p.shape).astype(np.float32),
        shapes(model, tokens),
    )


def assert_close(actual, expected, ulps, name=""):
    """Within some ulps of the largest value, or of 1."""
    atol = ulps * np.finfo(np.float64).eps * max(1, np.abs(np.asarray(expected)).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


class TestAgainstTorch:
    """Two layers and a head, in float64, against torch's own modules with the same
    parameters.

    The longest path forward is 5 + 1 sums of at most 4 + 3 terms and their activations,
    below 60 roundings, and as long backward; a parameter's gradient adds up 15
    positions. That is 135 half ulps of the largest value met, 1 or the tensor's own;
    parameters within 1/2 do not enlarge an error on its way.
    """

    ULPS = 70

    @pytest.mark.parametrize("per_step", [False, True])
    @pytest.mark.parametrize("cell", CELLS)
    def test_outputs_and_gradients(self, cell, per_step, float64):
        model = network(cell, per_step=per_step)
        params = jax.tree.map(lambda p: np.asarray(p, np.float64), start(model))
        assert max(np.abs(p).max() for p in jax.tree.leaves(params)) <= 0.5
        outputs, gradients = self.ours(model, params)
        torch_outputs, torch_gradients = self.theirs(cell, params, per_step)
        assert_close(outputs, torch_outputs, self.ULPS, "outputs")
        assert gradients.keys() == torch_gradients.keys()
        for name, gradient in gradients.items():
            assert_close(gradient, torch_gradients[name], self.ULPS, name)

    def ours(self, model, params):
        @jax.jit
        def evaluate(params):
            outputs, pullback = jax.vjp(
                lambda params, x: model.apply({"params": params}, x), params, X
            )
            return outputs, pullback(jnp.ones_like(outputs))

        outputs, (gradients, dx) = evaluate(params)
        return outputs, {**trace.flatten(gradients), "x": dx}

    def theirs(self, cell, params, per_step):
        module = TORCH[cell](
            FEATURES, HIDDEN[0], len(HIDDEN), batch_first=True, dtype=torch.float64
        )
        head = torch.nn.Linear(HIDDEN[-1], 2, dtype=torch.float64)
        tensors = dict(module.named_parameters())
        named = {
            f"layer_{layer}/{ours}": tensors[f"{theirs}_l{layer}"]
            for layer in range(len(HIDDEN))
            for ours, theirs in LAYER.items()
        }
        named |= {"output/kernel": head.weight, "output/bias": head.bias}
        with torch.no_grad():
            for name, array in trace.flatten(params).items():
                named[name].copy_(torch.from_numpy(array.T.copy()))
        x = torch.tensor(X, requires_grad=True)
        outputs = module(x)[0]
        outputs = head(outputs if per_step else outputs[:, -1])
        outputs.sum().backward()
        return outputs.detach(), {
            **{name: tensor.grad.numpy().T for name, tensor in named.items()},
            "x": x.grad,
        }


class TestRecur:
    @pytest.mark.parametrize("cell", CELLS)
    def test_gradient_is_automatic_differentiations(self, cell, float64):
        """The same sums in another order: as far apart as from torch."""
        arguments = self.arguments(CELLS[cell].gates)

        def plainly(from_input, kernel, bias):
            def step(state, gates):
                state, _ = CELLS[cell].forward(
                    gates, state[0] @ kernel + bias[None], state
                )
                return state, state[0]

            return lax.scan(
                step, (jnp.zeros((BATCH, 4)),) * CELLS[cell].states, from_input
            )[1]

        gradients = [
            jax.jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1, 2)))(
                *arguments
            )
            for f in (functools.partial(recur, CELLS[cell]), plainly)
        ]
        for ours, automatic in zip(*gradients):
            assert_close(ours, automatic, TestAgainstTorch.ULPS)

    @pytest.mark.parametrize("cell", CELLS)
    def test_gradient_is_the_difference_quotient(self, cell, float64):
        function = functools.partial(recur, CELLS[cell])
        arguments = self.arguments(CELLS[cell].gates)
        check_grads(function, arguments, order=1, modes=["rev"], rtol=1e-6, atol=1e-6)

    def test_a_kernel_of_another_cell_is_a_fault(self):
        from_input, kernel, bias = self.arguments(gates=3)
        with pytest.raises(AssertionError, match="assert_shape"):
            recur(CELLS["lstm"], from_input, kernel, bias)

    @pytest.mark.parametrize("cell", CELLS)
    def test_one_step_is_the_cell_at_a_state_of_zeros(self, cell):
        from_input, kernel, bias = self.arguments(CELLS[cell].gates)
        zeros = (np.zeros((BATCH, 4)),) * CELLS[cell].states
        expected, _ = jax.jit(CELLS[cell].forward)(
            from_input[0], np.broadcast_to(bias, from_input[0].shape), zeros
        )
        np.testing.assert_array_equal(
            jax.jit(functools.partial(recur, CELLS[cell]))(
                from_input[:1], kernel, bias
            )[0],
            expected[0],
        )

    def arguments(self, gates):
        draw = np.random.default_rng(2)
        return (
            draw.standard_normal((STEPS, BATCH, gates * 4)),
            draw.uniform(-0.5, 0.5, (4, gates * 4)),
            draw.uniform(-0.5, 0.5, gates * 4),
        )


class TestInitialParameters:
    @pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
    def test_names_and_shapes(self, cell, gates):
        params = shapes(network(cell, (4, 6), num_tokens=7), tokens=True)
        assert {name: array.shape for name, array in trace.flatten(params).items()} == {
            "embedding/embedding": (7, 4),
            "layer_0/input_kernel": (4, gates * 4),
            "layer_0/recurrent_kernel": (4, gates * 4),
            "layer_0/input_bias": (gates * 4,),
            "layer_0/recurrent_bias": (gates * 4,),
            "layer_1/input_kernel": (4, gates * 6),
            "layer_1/recurrent_kernel": (6, gates * 6),
            "layer_1/input_bias": (gates * 6,),
            "layer_1/recurrent_bias": (gates * 6,),
            "output/kernel": (6, 2),
            "output/bias": (2,),
        }

    def test_torch_default_bounds_every_tensor_by_the_hidden_size(self):
        """U(-b, b) with b = 1/8: none of 256 or more draws beyond b; 256 below 0.97 b
        have chance 4e-4."""
        for name, array in self.drawn("torch_default").items():
            assert 0.97 / 8 < np.abs(array).max() <= 1 / 8, name

    def test_glorot_counts_the_fans_of_one_gate(self):
        """Bound sqrt(6 / (64 + 64)) for each gate; with all four side by side it would
        be sqrt(6 / (64 + 256))."""
        params = self.drawn("glorot_uniform")
        gates = np.split(params["recurrent_kernel"], 4, axis=1)
        assert len({gate.tobytes() for gate in gates}) == 4
        for gate in gates:
            assert 0.97 < np.abs(gate).max() / np.sqrt(6 / 128) <= 1
        assert not params["input_bias"].any()
        assert not params["recurrent_bias"].any()

    def drawn(self, initializer):
        layer = RecurrentLayer("lstm", 64, INITIALIZERS[initializer])
        params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 1, 2)))["params"]
        return jax.tree.map(np.asarray, params)


class TestRecurrent:
    def test_tokens_are_rows_of_the_embedding(self):
        tokens = network("gru", num_tokens=7, per_step=True)
        params = start(tokens, tokens=True)
        layers = {name: value for name, value in params.items() if name != "embedding"}
        rows = params["embedding"]["embedding"][TOKENS]
        real = jax.jit(network("gru", per_step=True).apply)({"params": layers}, rows)
        np.testing.assert_array_equal(
            jax.jit(tokens.apply)({"params": params}, TOKENS), real
        )

    def test_last_of_the_steps(self):
        params = start(network("lstm"))
        x = X.astype(np.float32)
        every = jax.jit(network("lstm", per_step=True).apply)({"params": params}, x)
        assert every.shape == (BATCH, STEPS, 2)
        # The head multiplies 3 rows or 15: at most 5 roundings in another order, of
        # sums below 4.
        np.testing.assert_allclose(
            jax.jit(network("lstm").apply)({"params": params}, x),
            every[:, -1],
            rtol=0,
            atol=5 * 4 * np.finfo(np.float32).eps,
        )

    def test_later_inputs_do_not_reach_earlier_outputs(self):
        model = network("lstm", per_step=True)
        apply = jax.jit(model.apply)
        x = X.astype(np.float32)
        changed = x.copy()
        changed[:, 3:] += 1
        first, second = (
            apply({"params": start(model)}, inputs) for inputs in (x, changed)
        )
        np.testing.assert_array_equal(first[:, :3], second[:, :3])
        assert (first[:, 3:] != second[:, 3:]).any()

    def test_masks_are_drawn_per_position_after_each_layer(self):
        model = network("rnn", dropout_rates=(0.0, 0.5), per_step=True)
        params = start(model)
        masks = mask_source(7, 3, 0)
        x = X.astype(np.float32)
        head = {"kernel": jnp.eye(4, 2), "bias": jnp.zeros(2)}

        def run(masks):
            return jax.jit(
                lambda: model.apply({"params": {**params, "output": head}}, x, masks)
            )()

        kept = dropout(jnp.ones((BATCH, STEPS, 4)), 0.5, 1, masks)[..., :2]
        np.testing.assert_array_equal(run(masks), run(None) * kept)
        assert len(np.unique(kept[0], axis=0)) > 1

    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_computes_in_the_format_it_is_given(self, cell, dtype):
        model = network(cell, dropout_rates=(0.5, 0.5))
        params = jax.tree.map(lambda p: p.astype(dtype), start(model))
        results = jax.eval_shape(
            jax.value_and_grad(
                lambda params: model.apply(
                    {"params": params}, X.astype(dtype), mask_source(0, 0, 0)
                ).sum()
            ),
            params,
        )
        assert {array.dtype for array in jax.tree.leaves(results)} == {jnp.dtype(dtype)}

    @pytest.mark.parametrize("cell", CELLS)
    def test_large_inputs_stay_finite_in_fp16(self, cell):
        model = network(cell)
        params = jax.tree.map(lambda p: p.astype(jnp.float16), start(model))
        run = jax.jit(
            jax.grad(lambda params, x: model.apply({"params": params}, x).sum())
        )
        for array in jax.tree.leaves(run(params, np.full(X.shape, 3e4, np.float16))):
            assert jnp.isfinite(array).all()

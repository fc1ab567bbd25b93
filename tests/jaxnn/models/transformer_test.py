"""Tests of jaxnn/models/transformer.py and jaxnn/models/attention.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jaxnn.dropout import dropout, mask_source
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.attention import self_attention
from jaxnn.models.transformer import Transformer

BATCH, STEPS, WIDTH, HEADS, VOCABULARY = 3, 5, 8, 2, 7
TOKENS = (
    np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, STEPS)).astype(np.int32)
)
IMAGES = (
    np.random.default_rng(1).standard_normal((BATCH, STEPS, 2, 3)).astype(np.float32)
)


def network(
    causal=True, per_step=True, num_tokens=VOCABULARY, dropout_rate=0.0, num_layers=2
):
    return Transformer(
        num_tokens,
        VOCABULARY,
        num_layers,
        WIDTH,
        HEADS,
        12,
        STEPS + 1,
        causal,
        per_step,
        dropout_rate,
        INITIALIZERS["torch_default"],
    )


def shapes(model):
    return jax.eval_shape(
        model.init, jax.random.key(0), TOKENS if model.num_tokens else IMAGES
    )["params"]


def start(model, dtype=np.float32):
    """Parameters within 1/2, drawn without compiling anything."""
    draw = np.random.default_rng(3)
    return jax.tree.map(
        lambda p: draw.uniform(-0.5, 0.5, p.shape).astype(dtype), shapes(model)
    )


def apply(model, params, x, masks=None):
    return np.asarray(
        jax.jit(lambda params, x: model.apply({"params": params}, x, masks))(params, x)
    )


def assert_close(actual, expected, ulps, name=""):
    """Within some ulps of the largest value, or of 1."""
    atol = ulps * np.finfo(np.float64).eps * max(1, np.abs(np.asarray(expected)).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def by_torch(params, x, causal, per_step):
    """The same network out of torch's own functions, from a flat {name: tensor}."""

    def linear(name, x):
        return F.linear(x, params[f"{name}/kernel"].T, params[f"{name}/bias"])

    def norm(name, x):
        return F.layer_norm(
            x, (WIDTH,), params[f"{name}/scale"], params[f"{name}/bias"], 1e-5
        )

    x = (
        F.embedding(x, params["embedding/embedding"])
        if x.ndim == 2
        else linear("embedding", x.flatten(2))
    )
    x = x + params["positions/embedding"][:STEPS]
    for block in ("block_0", "block_1"):
        q, k, v = linear(f"{block}/qkv", norm(f"{block}/norm_attention", x)).chunk(
            3, -1
        )
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v)
        )
        mixed = (
            F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            .transpose(1, 2)
            .flatten(2)
        )
        x = x + linear(f"{block}/attention_output", mixed)
        x = x + linear(
            f"{block}/mlp_out",
            F.gelu(linear(f"{block}/mlp_in", norm(f"{block}/norm_mlp", x))),
        )
    x = norm("norm_output", x)
    return linear("output", x if per_step else x[:, -1] if causal else x.mean(1))


class TestAgainstTorch:
    """In float64 against torch's functions with the same parameters.

    Forward, a block is two norms (two sums of eight and a few operations, 20 roundings
    each), matrix products of at most 13 terms, scores, softmax and mixture: below 95
    roundings; two blocks, a norm and the head: below 220. As many again backward, and a
    parameter's gradient adds up 15 positions: 230 ulps of the largest value, or of 1.
    """

    ULPS = 230

    @pytest.mark.parametrize(
        ("causal", "per_step", "num_tokens"),
        [
            (True, True, VOCABULARY),
            (True, False, 0),
            (False, False, 0),
            (False, True, VOCABULARY),
        ],
    )
    def test_outputs_and_gradients(self, causal, per_step, num_tokens, float64):
        model = network(causal, per_step, num_tokens)
        x = TOKENS if num_tokens else IMAGES.astype(np.float64)
        params = start(model, np.float64)
        leaves = {
            name: torch.tensor(array, requires_grad=True)
            for name, array in trace.flatten(params).items()
        }
        torch_outputs = by_torch(
            leaves,
            torch.tensor(x).long() if num_tokens else torch.tensor(x),
            causal,
            per_step,
        )
        torch_outputs.sin().sum().backward()

        outputs, gradients = self.ours(model, params, x)
        assert_close(outputs, torch_outputs.detach(), self.ULPS, "outputs")
        assert gradients.keys() == leaves.keys()
        for name, gradient in gradients.items():
            assert_close(gradient, leaves[name].grad, self.ULPS, name)

    def ours(self, model, params, x):
        def objective(params):
            outputs = model.apply({"params": params}, x)
            return jnp.sin(outputs).sum(), outputs

        gradients, outputs = jax.jit(jax.grad(objective, has_aux=True))(params)
        return outputs, trace.flatten(gradients)


class TestSelfAttention:
    def test_one_head_by_hand(self, float64):
        """Sums of at most eight products below 16, twice: 2 * 8 ulps of 16."""
        qkv = np.random.default_rng(4).standard_normal((1, STEPS, 3 * 8))
        q, k, v = np.split(qkv[0], 3, axis=1)
        weights = np.exp(q @ k.T / np.sqrt(8)) * np.tri(STEPS)
        expected = weights / weights.sum(1, keepdims=True) @ v
        ours = jax.jit(self_attention, static_argnums=(1, 2))(qkv, 1, True)
        np.testing.assert_allclose(
            ours[0], expected, rtol=0, atol=2 * 8 * 16 * np.finfo(np.float64).eps
        )

    @pytest.mark.parametrize("causal", [True, False])
    def test_large_scores_stay_finite_in_fp16(self, causal):
        """q k / sqrt(d) is 300^2 * 8 / sqrt 8 here, beyond fp16's 65504."""
        qkv = np.full((1, STEPS, 3 * 8), 300, np.float16)
        outputs, pullback = jax.vjp(lambda qkv: self_attention(qkv, 1, causal), qkv)
        assert (outputs == 300).all()
        assert jnp.isfinite(pullback(jnp.ones_like(outputs))[0]).all()

    def test_heads_that_do_not_divide_the_width_are_a_fault(self):
        with pytest.raises(AssertionError, match="assert_is_divisible"):
            self_attention(jnp.ones((1, 2, 3 * WIDTH)), 3, causal=True)


class TestTransformer:
    @pytest.mark.parametrize("num_tokens", [0, VOCABULARY])
    def test_names_and_shapes(self, num_tokens):
        embedding = (
            {"embedding/embedding": (7, 8)}
            if num_tokens
            else {"embedding/kernel": (6, 8), "embedding/bias": (8,)}
        )
        block = {
            "norm_attention/scale": (8,),
            "norm_attention/bias": (8,),
            "qkv/kernel": (8, 24),
            "qkv/bias": (24,),
            "attention_output/kernel": (8, 8),
            "attention_output/bias": (8,),
            "norm_mlp/scale": (8,),
            "norm_mlp/bias": (8,),
            "mlp_in/kernel": (8, 12),
            "mlp_in/bias": (12,),
            "mlp_out/kernel": (12, 8),
            "mlp_out/bias": (8,),
        }
        params = trace.flatten(shapes(network(num_tokens=num_tokens, num_layers=1)))
        assert {name: array.shape for name, array in params.items()} == {
            **embedding,
            "positions/embedding": (6, 8),
            **{f"block_0/{name}": shape for name, shape in block.items()},
            "norm_output/scale": (8,),
            "norm_output/bias": (8,),
            "output/kernel": (8, 7),
            "output/bias": (7,),
        }

    def test_later_tokens_do_not_reach_earlier_outputs(self):
        model, changed = network(), TOKENS.copy()
        changed[:, 3:] = (changed[:, 3:] + 1) % VOCABULARY
        first, second = (
            apply(model, start(model), tokens) for tokens in (TOKENS, changed)
        )
        np.testing.assert_array_equal(first[:, :3], second[:, :3])
        assert (first[:, 3:] != second[:, 3:]).any()

    def test_encoder_tells_orders_apart_by_positions_alone(self, float64):
        """Without positions the same sums run in another order: the bound is the one
        against torch."""
        model = network(causal=False, per_step=False)
        params = start(model, np.float64)
        shuffled = TOKENS[:, [3, 0, 4, 1, 2]]
        assert (
            np.abs(apply(model, params, TOKENS) - apply(model, params, shuffled)).max()
            > 1e-3
        )
        params["positions"]["embedding"][:] = 0
        assert_close(
            apply(model, params, TOKENS),
            apply(model, params, shuffled),
            TestAgainstTorch.ULPS,
        )

    @pytest.mark.parametrize("num_tokens", [0, VOCABULARY])
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_computes_in_the_format_it_is_given(self, num_tokens, dtype):
        model = network(num_tokens=num_tokens, dropout_rate=0.5, num_layers=1)
        x = TOKENS if num_tokens else IMAGES.astype(dtype)
        results = jax.eval_shape(
            jax.value_and_grad(
                lambda params: model.apply(
                    {"params": params}, x, mask_source(0, 0, 0)
                ).sum()
            ),
            start(model, dtype),
        )
        assert {array.dtype for array in jax.tree.leaves(results)} == {jnp.dtype(dtype)}

    def test_dropout_layers_are_counted_through_the_blocks(self):
        """Attention and MLP of block 1 are biases alone: the stream is what dropout
        layers 3 and 4 keep of them."""
        model = network(dropout_rate=0.5)
        params = jax.tree.map(np.zeros_like, start(model))
        params["block_1"]["attention_output"]["bias"][:] = 1
        params["block_1"]["mlp_out"]["bias"][:] = 2
        params["norm_output"]["scale"][:] = 1
        params["output"]["kernel"] = np.eye(WIDTH, VOCABULARY, dtype=np.float32)
        masks = mask_source(5, 2, 0)
        ones = jnp.ones((BATCH, STEPS, WIDTH))
        stream = np.asarray(
            dropout(ones, 0.5, 3, masks) + 2 * dropout(ones, 0.5, 4, masks)
        )
        expected = stream - stream.mean(-1, keepdims=True)
        expected /= np.sqrt((expected**2).mean(-1, keepdims=True) + np.float32(1e-5))
        # A norm of eight numbers rounds some 20 times.
        np.testing.assert_allclose(
            apply(model, params, TOKENS, masks),
            expected[..., :VOCABULARY],
            rtol=0,
            atol=20 * 4 * np.finfo(np.float32).eps,
        )

    def test_embeddings_start_small(self):
        """N(0, 0.02^2): the deviation of 48 draws or more lies within 40% of it, 4
        standard errors."""
        params = jax.jit(network(num_layers=1).init)(jax.random.key(0), TOKENS)[
            "params"
        ]
        for name in ("embedding", "positions"):
            assert 0.6 < params[name]["embedding"].std() / 0.02 < 1.4

    def test_too_long_a_sequence_is_refused(self):
        model = network()
        with pytest.raises(
            UserError, match="--sequence_length: 7 steps, but the model has 6 positions"
        ):
            jax.eval_shape(
                model.init, jax.random.key(0), np.zeros((BATCH, STEPS + 2), np.int32)
            )

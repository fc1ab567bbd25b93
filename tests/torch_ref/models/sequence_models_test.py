"""Tests of torch_ref/models/rnn.py, transformer.py and attention.py: against jaxnn's,
with the same parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxnn.dropout
import jaxnn.models
import torch_ref.dropout
import torch_ref.models
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten, unflatten
from jaxnn.experiment.flags.config import Experiment
from torch_ref import params_io
from torch_ref.models.attention import self_attention

BATCH, STEPS, VOCABULARY = 3, 5, 7
TOKENS = (
    np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, STEPS)).astype(np.int32)
)
LANGUAGE = Signature((STEPS,), VOCABULARY, VOCABULARY, per_step=True)
LAST_OF_TOKENS = LANGUAGE._replace(per_step=False)
SERIES, EVERY_STEP = Signature((STEPS, 2), 3), Signature((STEPS, 2), 3, per_step=True)
ROWS_OF_IMAGES = Signature((STEPS, 2, 3), 4)

RECURRENT = Experiment(
    hidden_sizes=(4, 6), dropout_rates=(0.25, 0.5), initializer="torch_default"
)
ATTENTIVE = Experiment(
    width=8,
    num_heads=2,
    mlp_width=12,
    num_layers=2,
    dropout_rates=(0.25,),
    initializer="torch_default",
)
CASES = [
    *(
        (RECURRENT.replace(model=cell), signature)
        for cell in ("rnn", "lstm", "gru")
        for signature in (LANGUAGE, SERIES)
    ),
    (RECURRENT.replace(model="lstm"), LAST_OF_TOKENS),
    (RECURRENT.replace(model="gru"), EVERY_STEP),
    (ATTENTIVE.replace(model="transformer"), LANGUAGE),
    (ATTENTIVE.replace(model="transformer"), SERIES),
    (ATTENTIVE.replace(model="transformer_encoder"), ROWS_OF_IMAGES),
    (ATTENTIVE.replace(model="transformer_encoder"), LANGUAGE),
]


def case_id(experiment, signature):
    shape = "x".join(map(str, signature.input_shape))
    outputs = "each" if signature.per_step else "one"
    return f"{experiment.model}-{shape}-{outputs}"


every_case = pytest.mark.parametrize(
    ("experiment", "signature"), CASES, ids=[case_id(*case) for case in CASES]
)
half_formats = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def inputs(signature):
    if signature.num_tokens:
        return TOKENS
    # On a grid of 1/16, so that every format holds them.
    return (
        np.random.default_rng(1).integers(-32, 33, (BATCH, *signature.input_shape)) / 16
    )


def shapes(experiment, signature):
    model, x = jaxnn.models.build(experiment, signature), inputs(signature)
    x = x if signature.num_tokens else x.astype(np.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    return {name: leaf.shape for name, leaf in flatten(tree).items()}


def start(experiment, signature):
    """float64 parameters within 1/2, on a grid of 1/128 that every format holds."""
    draw = np.random.default_rng(3)
    return {
        name: draw.integers(-64, 65, shape) / 128
        for name, shape in shapes(experiment, signature).items()
    }


def by_jax(experiment, signature, params):
    """Outputs and gradients of the sum of their sines in training, in float64."""
    model = jaxnn.models.build(experiment, signature)
    masks = jaxnn.dropout.mask_source(7, 3, 0)

    def objective(params):
        outputs = model.apply({"params": unflatten(params)}, inputs(signature), masks)
        return jnp.sin(outputs).sum(), outputs

    gradients, outputs = jax.jit(jax.grad(objective, has_aux=True))(params)
    return {"outputs": outputs, **gradients}


def by_torch(experiment, signature, params, dtype=torch.float64):
    """As `by_jax` in any format, sum and sines in float64; gradients by their Flax
    names, and the model."""
    model = torch_ref.models.build(experiment, signature).to(dtype)
    params_io.load(model, params, "the test")
    x = torch.from_numpy(inputs(signature))
    outputs = model(
        x if signature.num_tokens else x.to(dtype),
        torch_ref.dropout.mask_source(7, 3, 0),
    )
    outputs.double().sin().sum().backward()
    gradients = params_io.to_flax(
        model, {name: param.grad for name, param in model.named_parameters()}
    )
    return {"outputs": outputs.detach().double().numpy(), **gradients}, outputs, model


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


class TestAgainstJax:
    @every_case
    def test_outputs_and_gradients(self, experiment, signature, float64):
        """Within 1e-10 of each tensor's largest value: rounding leaves below 230 ulps,
        5e-14 (tests/jaxnn/models/transformer_test.py counts them), gelu's other form
        would leave 1e-4."""
        params = start(experiment, signature)
        ours, (theirs, _, _) = (
            by_jax(experiment, signature, params),
            by_torch(experiment, signature, params),
        )
        assert ours.keys() == theirs.keys()
        for name, expected in ours.items():
            assert np.abs(expected).max() > 1e-3, name
            np.testing.assert_allclose(
                theirs[name],
                expected,
                rtol=0,
                atol=1e-10 * np.abs(expected).max(),
                err_msg=name,
            )

    @every_case
    def test_evaluation_drops_nothing(self, experiment, signature):
        model = torch_ref.models.build(experiment, signature)
        still = torch_ref.models.build(experiment.replace(dropout_rates=()), signature)
        still.load_state_dict(model.state_dict())
        x = torch.from_numpy(inputs(signature))
        x = x if signature.num_tokens else x.float()
        masks = torch_ref.dropout.mask_source(7, 3, 0)
        assert torch.equal(model(x), still(x, masks))
        assert not torch.equal(model(x), model(x, masks))


class TestHalfPrecision:
    @half_formats
    @every_case
    def test_keeps_the_format_and_its_digits(self, experiment, signature, dtype):
        """230 independent roundings of at most half an ulp add up to sqrt(230) / 2
        ulps, 8, in root mean square."""
        params = start(experiment, signature)
        exact, _, _ = by_torch(experiment, signature, params)
        rounded, outputs, model = by_torch(experiment, signature, params, dtype)
        assert {outputs.dtype, *(param.grad.dtype for param in model.parameters())} == {
            dtype
        }
        for name, expected in exact.items():
            assert rms(rounded[name].astype(np.float64) - expected) <= 8 * torch.finfo(
                dtype
            ).eps * rms(expected), name

    @pytest.mark.parametrize("causal", [True, False])
    def test_large_scores_stay_finite_in_fp16(self, causal):
        """q k / sqrt(d) is 300^2 * 8 / sqrt 8 here, beyond fp16's 65504."""
        qkv = torch.full(
            (1, STEPS, 3 * 8), 300.0, dtype=torch.float16, requires_grad=True
        )
        outputs = self_attention(qkv, 1, causal)
        outputs.sum().backward()
        assert (outputs == 300).all()
        assert torch.isfinite(qkv.grad).all()

    @half_formats
    def test_scores_are_scaled_by_the_rounded_root(self, dtype):
        """Of 3 features: jax multiplies by 1 / sqrt(3) as the format holds it, and so
        do we, to the bit."""
        qkv = torch.from_numpy(np.random.default_rng(5).standard_normal((1, 4, 9))).to(
            dtype
        )
        q, k, v = qkv[0].float().split(3, dim=1)
        q = (q * torch.tensor(3**-0.5).to(dtype).float()).to(dtype).float()
        expected = torch.softmax(q @ k.T, dim=1).to(dtype) @ v.to(dtype)
        assert torch.equal(self_attention(qkv, 1, causal=False)[0], expected)


class TestNames:
    @every_case
    def test_round_trip_bit_for_bit(self, experiment, signature):
        arrays = {
            name: np.random.default_rng(2).standard_normal(shape).astype(np.float32)
            for name, shape in shapes(experiment, signature).items()
        }
        model = torch_ref.models.build(experiment, signature)
        params_io.load(model, arrays, "the test")
        back = params_io.to_flax(model, dict(model.named_parameters()))
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            assert back[name].tobytes() == array.tobytes(), name


class TestInitialParameters:
    def test_torch_default_bounds_every_tensor_by_the_hidden_size(self):
        """U(-b, b) with b = 1/8: none of 256 or more draws beyond b; 256 below 0.97 b
        have chance 4e-4."""
        for name, array in self.drawn("torch_default").items():
            assert 0.97 / 8 < np.abs(array).max() <= 1 / 8, name

    def test_glorot_counts_the_fans_of_one_gate(self):
        """Bound sqrt(6 / (64 + 64)) for each gate; with all four side by side it would
        be sqrt(6 / (64 + 256))."""
        params = self.drawn("glorot_uniform")
        gates = np.split(params["layer_0/recurrent_kernel"], 4, axis=1)
        assert len({gate.tobytes() for gate in gates}) == 4
        for gate in gates:
            assert 0.97 < np.abs(gate).max() / np.sqrt(6 / 128) <= 1
        assert not params["layer_0/input_bias"].any()
        assert not params["layer_0/recurrent_bias"].any()

    @pytest.mark.parametrize(
        ("experiment", "names", "deviation"),
        [
            (
                RECURRENT.replace(model="gru", hidden_sizes=(64,), dropout_rates=()),
                ("embedding",),
                1,
            ),
            (
                ATTENTIVE.replace(model="transformer", width=64),
                ("embedding", "positions"),
                0.02,
            ),
        ],
    )
    def test_embeddings_are_normal(self, experiment, names, deviation):
        """The deviation of 320 draws or more lies within 16% of the distribution's, 4
        standard errors."""
        for name in names:
            array = self.arrays(experiment, LANGUAGE)[f"{name}/embedding"]
            assert 0.84 < array.std() / deviation < 1.16
            assert (
                np.abs(array).max() > 2 * deviation
            )  # uniform draws of that deviation end at 1.74

    def drawn(self, initializer):
        experiment = RECURRENT.replace(
            model="lstm", hidden_sizes=(64,), dropout_rates=(), initializer=initializer
        )
        arrays = self.arrays(experiment, SERIES)
        return {
            name: array for name, array in arrays.items() if name.startswith("layer_0")
        }

    def arrays(self, experiment, signature):
        torch.manual_seed(0)
        model = torch_ref.models.build(experiment, signature)
        return params_io.to_flax(model, dict(model.named_parameters()))


class TestTransformer:
    def test_too_long_a_sequence_is_refused(self):
        model = torch_ref.models.build(ATTENTIVE.replace(model="transformer"), LANGUAGE)
        with pytest.raises(
            UserError,
            match=r"^--sequence_length: 7 steps, but the model has 5 positions",
        ):
            model(torch.zeros(BATCH, STEPS + 2, dtype=torch.int32))

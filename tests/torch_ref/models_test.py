"""Tests of torch_ref/models: MLPs, CNNs and ResNets against jaxnn's, with the same
parameters."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jaxnn.dropout
import jaxnn.models
import jaxnn.models.resnet
import torch_ref.dropout
import torch_ref.models
import torch_ref.models.resnet
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files.trace import flatten, unflatten
from jaxnn.experiment.flags.config import Experiment
from torch_ref import params_io

ROWS, SEED, RATE = 6, 7, 0.125
WEIGHTS = np.array([1, 1, 1, 1, 0, 0], np.float32)
TABLE, IMAGES = Signature((5,), 3), Signature((8, 8, 2), 3)
MLP = Experiment(
    model="mlp", hidden_sizes=(7, 4), activation="tanh", dropout_rates=(0.25, 0.5)
)
CNN = Experiment(model="cnn", channels=(3, 4), hidden_sizes=(9,), dropout_rates=(0.25,))
RESNET = Experiment(model="resnet", resnet_depth=20)
CASES = {
    "mlp": (MLP, TABLE),
    "mlp-batch": (MLP.replace(normalization="batch"), TABLE),
    "mlp-layer": (MLP.replace(normalization="layer"), TABLE),
    "mlp-residual": (MLP.replace(hidden_sizes=(7, 7), residual=True), TABLE),
    "mlp-of-images": (MLP, IMAGES),
    "cnn-max": (CNN.replace(normalization="batch"), IMAGES),
    "cnn-average": (CNN.replace(pool="average", kernel_size=5), IMAGES),
    "cnn-layer": (
        CNN.replace(normalization="layer", activation="tanh"),
        Signature((7, 2, 1), 3),
    ),
    "cnn-deep": (
        CNN.replace(
            channels=(3, 4, 2), hidden_sizes=(), activation="tanh", dropout_rates=()
        ),
        Signature((5, 7, 1), 3),
    ),
    "linear-no-bias": (Experiment(use_bias=False), TABLE),
    "mlp-no-bias": (MLP.replace(use_bias=False), TABLE),
    "cnn-no-bias": (CNN.replace(use_bias=False), IMAGES),
    "resnet-20": (RESNET, IMAGES),
    "resnet-50": (RESNET.replace(resnet_depth=50), Signature((9, 8, 2), 3)),
}
every_case = pytest.mark.parametrize("case", CASES)


class Step(NamedTuple):
    """What a training step shows, under Flax's names."""

    outputs: np.ndarray
    grads: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]


@pytest.fixture
def small(monkeypatch):
    """ResNets of three blocks, three channels in the first; depth 50 has all that depth
    18 has."""
    for package in (jaxnn, torch_ref):
        layouts = package.models.resnet.LAYOUTS
        for depth in (20, 50):
            monkeypatch.setitem(
                layouts, depth, layouts[depth]._replace(blocks=(1, 2), channels=3)
            )


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def inputs(signature):
    """A batch for each of two steps; on a grid of 1/16, so that every format holds
    them."""
    return (
        np.random.default_rng(1).integers(-32, 33, (2, ROWS, *signature.input_shape))
        / 16
    )


def shapes(case):
    """{"params": {name: shape}, "batch_stats": ...} of jaxnn's network."""
    experiment, signature = CASES[case]
    model = jaxnn.models.build(experiment, signature)
    variables = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, *signature.input_shape), np.float32)
    )
    return {
        kind: {
            name: leaf.shape for name, leaf in flatten(variables.get(kind, {})).items()
        }
        for kind in ("params", "batch_stats")
    }


def start(case):
    """Kernels that keep the size of what they multiply, scales around 1, biases around
    0, on a grid of 1/256."""
    draw = np.random.default_rng(3)

    def array(name, shape):
        if name.endswith(("/scale", "/var")):
            return draw.integers(128, 385, shape) / 256
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 12
        return np.round(draw.uniform(-1, 1, shape) * 256 * math.sqrt(3 / fan_in)) / 256

    return {
        kind: {name: array(name, shape) for name, shape in tensors.items()}
        for kind, tensors in shapes(case).items()
    }


def by_jax(case):
    """Two steps of gradient descent on the sum of the real rows' sines, then an
    evaluation."""
    experiment, signature = CASES[case]
    model = jaxnn.models.build(experiment, signature)

    @jax.jit
    def step(params, stats, x, number):
        masks = jaxnn.dropout.mask_source(SEED, number, 0, jnp.asarray(WEIGHTS))

        def objective(params):
            outputs, updated = model.apply(
                {"params": unflatten(params), "batch_stats": stats},
                x,
                masks,
                mutable=["batch_stats"],
            )
            return jnp.sum(jnp.sin(outputs) * WEIGHTS.astype(np.float64)[:, None]), (
                outputs,
                updated,
            )

        grads, (outputs, updated) = jax.grad(objective, has_aux=True)(params)
        return grads, outputs, updated.get("batch_stats", {})

    variables, steps = start(case), []
    params, stats = variables["params"], unflatten(variables["batch_stats"])
    for number, x in enumerate(inputs(signature)):
        grads, outputs, stats = step(params, stats, x, number)
        params = {name: array - RATE * grads[name] for name, array in params.items()}
        steps.append(Step(outputs, grads, flatten(stats)))
    evaluate = jax.jit(
        lambda params, stats, x: model.apply(
            {"params": unflatten(params), "batch_stats": stats}, x
        )
    )
    return steps, evaluate(params, stats, inputs(signature)[0])


def by_torch(case, dtype=torch.float64):
    """As `by_jax` in any format, sum and sines in float64."""
    signature, model, steps = CASES[case][1], build(case, dtype), []
    for number, x in enumerate(torch.from_numpy(inputs(signature)).to(dtype)):
        masks = torch_ref.dropout.mask_source(
            SEED, number, 0, torch.from_numpy(WEIGHTS)
        )
        outputs = model(x, masks)
        model.zero_grad()
        (
            outputs.double().sin() * torch.from_numpy(WEIGHTS).double()[:, None]
        ).sum().backward()
        grads = {name: param.grad for name, param in model.named_parameters()}
        assert {outputs.dtype, *(grad.dtype for grad in grads.values())} == {dtype}
        steps.append(
            Step(
                outputs.detach().double().numpy(),
                params_io.to_flax(model, grads),
                params_io.stats_to_flax(model),
            )
        )
        with torch.no_grad():
            for param in model.parameters():
                param -= RATE * param.grad
    return steps, model(
        torch.from_numpy(inputs(signature)[0]).to(dtype)
    ).detach().double().numpy()


def build(case, dtype=torch.float32):
    model, variables = torch_ref.models.build(*CASES[case]).to(dtype), start(case)
    params_io.load(model, variables["params"], "the test")
    params_io.load_stats(model, variables["batch_stats"], "the test")
    return model


def assert_close(actual, expected, name):
    """Within 1e-10 of the tensor's largest value."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=1e-10 * np.abs(expected).max(), err_msg=name
    )


@pytest.mark.usefixtures("small", "float64")
class TestAgainstJax:
    @every_case
    def test_two_steps_with_padded_rows_and_an_evaluation(self, case):
        (ours, our_evaluation), (theirs, their_evaluation) = (
            by_jax(case),
            by_torch(case),
        )
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(other.outputs, mine.outputs, "outputs")
            assert mine.grads.keys() == other.grads.keys()
            assert (
                mine.stats.keys()
                == other.stats.keys()
                == shapes(case)["batch_stats"].keys()
            )
            for name in mine.grads:
                self.assert_gradient(case, name, other.grads[name], mine.grads[name])
            for name in mine.stats:
                assert_close(other.stats[name], mine.stats[name], name)
                assert not np.array_equal(
                    mine.stats[name], start(case)["batch_stats"][name]
                )
        assert_close(their_evaluation, our_evaluation, "evaluation")

    def assert_gradient(self, case, name, actual, expected):
        if (
            CASES[case][0].normalization == "batch"
            and name.split("/") in self.without_effect()
        ):
            assert max(np.abs(actual).max(), np.abs(expected).max()) < 1e-12, name
        else:
            assert np.abs(expected).max() > 1e-4, name
            assert_close(actual, expected, name)

    def without_effect(self):
        """Biases that batch normalization takes away with the mean."""
        return [
            [f"{kind}_{layer}", "bias"]
            for kind in ("conv", "hidden")
            for layer in range(2)
        ]


class TestNames:
    @every_case
    def test_shapes_are_jaxnns(self, case):
        model = torch_ref.models.build(*CASES[case])
        params = params_io.to_flax(model, dict(model.named_parameters()))
        assert {
            "params": {name: array.shape for name, array in params.items()},
            "batch_stats": {
                name: array.shape
                for name, array in params_io.stats_to_flax(model).items()
            },
        } == shapes(case)

    def test_layouts_are_jaxnns(self):
        ours, theirs = jaxnn.models.resnet.LAYOUTS, torch_ref.models.resnet.LAYOUTS
        assert {depth: layout._asdict() for depth, layout in ours.items()} == {
            depth: layout._asdict() for depth, layout in theirs.items()
        }


@pytest.mark.usefixtures("small")
class TestHalfPrecision:
    @every_case
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_statistics_stay_in_float32(self, case, dtype):
        """Outputs and gradients keep the format (`by_torch` asserts it), statistics
        those digits that it lacks."""
        steps, _ = by_torch(case, dtype)
        before, after = start(case)["batch_stats"], steps[0].stats
        for name, array in after.items():
            assert array.dtype == np.float32
            assert not np.array_equal(
                torch.from_numpy(array).to(dtype).float().numpy(), array
            )
            assert not np.array_equal(array, before[name])

    @pytest.mark.parametrize("case", ["mlp-batch", "mlp-layer", "cnn-average"])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_first_gradients_have_the_formats_digits(self, case, dtype):
        """About 20 roundings on the way to a gradient, each at most half an ulp and
        none magnified more than 3-fold: 30 ulps at most, 8 in root mean square."""
        exact, rounded = by_torch(case)[0][0], by_torch(case, dtype)[0][0]
        for name, expected in exact.grads.items():
            if np.abs(expected).max() > 1e-12:
                error = np.sqrt(
                    np.mean(
                        np.square(rounded.grads[name].astype(np.float64) - expected)
                    )
                )
                assert error <= 8 * torch.finfo(dtype).eps * np.sqrt(
                    np.mean(np.square(expected))
                ), name


class TestInitialParameters:
    @pytest.mark.parametrize("case", ["mlp-batch", "cnn-max", "resnet-20"])
    def test_norms_start_at_one_and_zero(self, case):
        model = torch_ref.models.build(*CASES[case])
        stats, params = (
            params_io.stats_to_flax(model),
            params_io.to_flax(model, dict(model.named_parameters())),
        )
        for name, array in (stats | params).items():
            if name.endswith(("/scale", "/var")):
                assert (array == 1).all()
            elif "norm" in name:
                assert (array == 0).all()

    def test_convolutions_count_their_window(self):
        """U(-b, b), b = 1 / sqrt(3 * 3 * 8): none of 1152 draws beyond b; all of them
        below 0.97 b has chance 1e-15."""
        arrays = self.drawn("torch_default")
        bound = 1 / math.sqrt(3 * 3 * 8)
        assert 0.97 * bound < np.abs(arrays["conv_1/kernel"]).max() <= bound
        assert 0.5 * bound < np.abs(arrays["conv_1/bias"]).max() <= bound

    def test_fans_of_a_convolution(self):
        """Bound sqrt(6 / (9 * (8 + 16))) of glorot_uniform; 1152 draws all below 0.97
        of it have chance 1e-15."""
        arrays = self.drawn("glorot_uniform")
        assert (
            0.97 < np.abs(arrays["conv_1/kernel"]).max() / math.sqrt(6 / (9 * 24)) <= 1
        )
        assert not arrays["conv_1/bias"].any()

    def drawn(self, initializer):
        torch.manual_seed(0)
        model = torch_ref.models.build(
            CNN.replace(channels=(8, 16), initializer=initializer), IMAGES
        )
        return params_io.to_flax(model, dict(model.named_parameters()))

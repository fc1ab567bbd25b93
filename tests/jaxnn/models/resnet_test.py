"""Tests of jaxnn/models/resnet.py: published parameter counts, and the same formulas in
torch, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxnn.dropout import mask_source
from jaxnn.experiment.files import trace
from jaxnn.initializers import INITIALIZERS
from jaxnn.models.resnet import LAYOUTS, ResNet

SMALL = {
    20: LAYOUTS[20]._replace(blocks=(1, 2), channels=3),
    18: LAYOUTS[18]._replace(blocks=(1, 2), channels=3),
    50: LAYOUTS[50]._replace(blocks=(1, 2), channels=3),
}
X = np.random.default_rng(0).standard_normal((4, 9, 8, 2))


def network(depth, num_outputs=5):
    return ResNet(depth, num_outputs, INITIALIZERS["he_normal"])


def shapes(depth, num_outputs, *image):
    example = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    return jax.eval_shape(network(depth, num_outputs).init, jax.random.key(0), example)


def start(depth, x=X):
    """Kernels of mean 0, all else in (1/4, 3/4), drawn without compiling anything."""
    draw = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: (
            draw.uniform(0.25, 0.75, leaf.shape) - (0.5 if leaf.ndim > 1 else 0)
        ),
        shapes(depth, 5, *x.shape[1:]),
    )


class Torch:
    """The network as in the paper, its tensors looked up by name; in training,
    statistics of the batch."""

    def __init__(self, variables, training):
        self.params, self.stats = (
            {name: torch.tensor(array) for name, array in trace.flatten(tree).items()}
            for tree in (variables["params"], variables["batch_stats"])
        )
        self.training = training

    def convolve(self, x, conv, norm, stride):
        kernel = self.params[f"{conv}/kernel"].permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return functional.batch_norm(
            x,
            self.stats[f"{norm}/mean"],
            self.stats[f"{norm}/var"],
            self.params[f"{norm}/scale"],
            self.params[f"{norm}/bias"],
            self.training,
        )

    def block(self, x, name, strides, projection):
        y = x
        for layer, stride in enumerate(strides):
            y = self.convolve(y, f"{name}/conv_{layer}", f"{name}/norm_{layer}", stride)
            y = torch.relu(y) if layer + 1 < len(strides) else y
        stride = math.prod(strides)
        if y.shape != x.shape and projection:
            x = self.convolve(
                x, f"{name}/shortcut_conv", f"{name}/shortcut_norm", stride
            )
        elif y.shape != x.shape:
            x = functional.pad(
                x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])
            )
        return torch.relu(x + y)

    def __call__(self, x, depth):
        x = torch.tensor(np.moveaxis(x, -1, 1).copy())
        x = torch.relu(
            self.convolve(x, "stem_conv", "stem_norm", 1 if depth == 20 else 2)
        )
        x = x if depth == 20 else functional.max_pool2d(x, 3, 2, 1)
        for stage, block, stride in ((0, 0, 1), (1, 0, 2), (1, 1, 1)):
            strides = (1, stride, 1) if depth == 50 else (stride, 1)
            x = self.block(
                x, f"stage_{stage}_block_{block}", strides, projection=depth != 20
            )
        return (
            x.mean(dim=(2, 3)) @ self.params["output/kernel"]
            + self.params["output/bias"]
        )


def assert_close(actual, expected):
    tolerance = 2**11 * np.finfo(np.float64).eps * max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


class TestPublished:
    @pytest.mark.parametrize(
        ("depth", "classes", "pixels", "count"),
        [
            (20, 10, 32, 269_722),
            (32, 10, 32, 464_154),
            (18, 1000, 224, 11_689_512),
            (50, 1000, 224, 25_557_032),
        ],
    )
    def test_number_of_parameters(self, depth, classes, pixels, count):
        """Depths 20 and 32: 0.27 and 0.46 million in the paper's table 6; 18 and 50:
        torchvision's."""
        params = shapes(depth, classes, pixels, pixels, 3)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count

    @pytest.mark.parametrize("depth", LAYOUTS)
    def test_number_of_layers_is_the_depth(self, depth):
        names = trace.flatten(shapes(depth, 10, 32, 32, 3)["params"])
        assert (
            sum(name.endswith("kernel") and "shortcut" not in name for name in names)
            == depth
        )


class TestResNet:
    @pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
    @pytest.mark.parametrize("depth", SMALL)
    def test_is_torchs(self, depth, training, monkeypatch):
        """Ten layers at most; each rounds by at most 108 ulps of its largest value, the
        products of its longest sum.

        Residual sums and normalization keep values of one size, so the roundings add:
        10 * 108 ulps, or 2**11.
        """
        monkeypatch.setitem(LAYOUTS, depth, SMALL[depth])
        variables, theirs = start(depth), Torch(start(depth), training)
        expected = theirs(X, depth).numpy()
        with jax.enable_x64(True):
            outputs, updated = jax.jit(
                lambda variables, x: network(depth).apply(
                    variables,
                    x,
                    mask_source(0, 0, 0) if training else None,
                    mutable=["batch_stats"],
                )
            )(variables, X)
        assert_close(outputs, expected)
        for name, array in trace.flatten(updated["batch_stats"]).items():
            assert_close(array, theirs.stats[name].numpy())

    def test_names(self, monkeypatch):
        monkeypatch.setitem(LAYOUTS, 50, SMALL[50])
        tensors = shapes(50, 5, 9, 8, 2)
        block = {f"{kind}_{layer}" for kind in ("conv", "norm") for layer in range(3)}
        shortcut = {"shortcut_conv", "shortcut_norm"}
        params = tensors["params"]
        assert set(params) == {
            "stem_conv",
            "stem_norm",
            "stage_0_block_0",
            "stage_1_block_0",
            "stage_1_block_1",
            "output",
        }
        assert (
            set(params["stage_0_block_0"])
            == set(params["stage_1_block_0"])
            == block | shortcut
        )
        assert set(params["stage_1_block_1"]) == block
        assert set(params["stem_conv"]) == {"kernel"}
        assert set(tensors["batch_stats"]["stem_norm"]) == {"mean", "var"}

    @pytest.mark.parametrize("depth", LAYOUTS)
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
    def test_one_digit_in_any_format(self, depth, dtype):
        """8 x 8 pixels are few for five halvings; the statistics stay in float32."""

        def forward(variables, x):
            params = jax.tree.map(lambda p: p.astype(dtype), variables["params"])
            return network(depth).apply(
                {**variables, "params": params},
                x.astype(dtype),
                mask_source(0, 0, 0),
                mutable=["batch_stats"],
            )

        outputs, updated = jax.eval_shape(
            forward,
            shapes(depth, 5, 8, 8, 1),
            jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32),
        )
        assert (outputs.shape, outputs.dtype) == ((2, 5), dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {
            np.dtype(np.float32)
        }

"""Tests of torch_ref/params_io.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import models, params_io

SHAPES = {
    "hidden_0/kernel": (5, 8),
    "hidden_0/bias": (8,),
    "hidden_1/kernel": (8, 4),
    "hidden_1/bias": (4,),
    "output/kernel": (4, 3),
    "output/bias": (3,),
}
ARRAYS = {
    name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for name, shape in SHAPES.items()
}
FLOATS = st.floats(width=32, allow_nan=False)


def mlp(dtype=torch.float32):
    return models.build(
        Experiment(model="mlp", hidden_sizes=(8, 4)), Signature((5,), 3)
    ).to(dtype)


def every_layer():
    """A layer of each type, one convolution and one normalization a level down."""
    model, part = torch.nn.Module(), torch.nn.Module()
    part.conv_0, part.norm_0 = torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4)
    model.part, model.norm, model.layer_norm = (
        part,
        torch.nn.BatchNorm1d(3),
        torch.nn.LayerNorm(3),
    )
    model.dense, model.tokens = torch.nn.Linear(3, 2), torch.nn.Embedding(7, 3)
    model.rnn, model.lstm, model.gru = (
        kind(3, 2) for kind in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
    )
    return model


def cell_shapes(name, gates):
    return {
        f"{name}/input_kernel": (3, 2 * gates),
        f"{name}/recurrent_kernel": (2, 2 * gates),
        f"{name}/input_bias": (2 * gates,),
        f"{name}/recurrent_bias": (2 * gates,),
    }


EVERY_SHAPE = {
    "part/conv_0/kernel": (2, 2, 3, 4),
    "part/conv_0/bias": (4,),
    "part/norm_0/scale": (4,),
    "part/norm_0/bias": (4,),
    "norm/scale": (3,),
    "norm/bias": (3,),
    "layer_norm/scale": (3,),
    "layer_norm/bias": (3,),
    "dense/kernel": (3, 2),
    "dense/bias": (2,),
    "tokens/embedding": (7, 3),
    **cell_shapes("rnn", 1),
    **cell_shapes("lstm", 4),
    **cell_shapes("gru", 3),
}
EVERY_STAT = {
    "part/norm_0/mean": (4,),
    "part/norm_0/var": (4,),
    "norm/mean": (3,),
    "norm/var": (3,),
}


def random_bits(draw, shape):
    numbers = draw.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isfinite(numbers), numbers, np.float32(-0.0))


def read(model):
    return params_io.to_flax(model, dict(model.named_parameters()))


class TestFlaxNames:
    def test_covers_every_parameter_in_order(self):
        names = params_io.flax_names(mlp())
        assert list(names) == [name for name, _ in mlp().named_parameters()]
        assert sorted(names.values()) == sorted(SHAPES)
        assert names["hidden_0.weight"] == "hidden_0/kernel"


class TestToFlax:
    def test_kernels_are_transposed(self):
        model = mlp()
        arrays = read(model)
        assert {name: array.shape for name, array in arrays.items()} == SHAPES
        np.testing.assert_array_equal(
            arrays["hidden_0/kernel"], model.hidden_0.weight.detach().numpy().T
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_arrays_are_contiguous_float32(self, dtype):
        for array in read(mlp(dtype)).values():
            assert array.dtype == np.float32
            assert array.flags.c_contiguous

    def test_serves_gradients(self):
        model = mlp()
        model(torch.ones(1, 5)).sum().backward()
        grads = params_io.to_flax(
            model, {name: param.grad for name, param in model.named_parameters()}
        )
        assert {name: array.shape for name, array in grads.items()} == SHAPES
        np.testing.assert_array_equal(grads["output/bias"], np.ones(3, np.float32))

    def test_float64_keeps_its_digits(self):
        model = mlp(torch.float64)
        torch.nn.init.constant_(model.output.bias, 1 / 3)
        assert (read(model)["output/bias"] == 1 / 3).all()


class TestEveryLayer:
    def test_names_and_layouts(self):
        model = every_layer()
        arrays = read(model) | params_io.stats_to_flax(model)
        assert {
            name: array.shape for name, array in arrays.items()
        } == EVERY_SHAPE | EVERY_STAT
        assert (
            arrays["part/conv_0/kernel"][0, 1, 2, 3]
            == model.part.conv_0.weight[3, 2, 0, 1]
        )
        np.testing.assert_array_equal(
            arrays["gru/input_kernel"], model.gru.weight_ih_l0.detach().T
        )
        np.testing.assert_array_equal(
            arrays["tokens/embedding"], model.tokens.weight.detach()
        )

    @given(st.integers(0, 2**32 - 1))
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_round_trip_bit_for_bit(self, seed):
        """Random bits: every finite number, signed zeros and subnormals among them."""
        model, draw = every_layer(), np.random.default_rng(seed)
        params, stats = (
            {name: random_bits(draw, shape) for name, shape in shapes.items()}
            for shapes in (EVERY_SHAPE, EVERY_STAT)
        )
        params_io.load(model, params, "file")
        params_io.load_stats(model, stats, "file")
        for back, given_arrays in (
            (read(model), params),
            (params_io.stats_to_flax(model), stats),
        ):
            assert back.keys() == given_arrays.keys()
            for name, array in given_arrays.items():
                assert back[name].tobytes() == array.tobytes(), name

    def test_a_layer_without_a_row_is_named(self):
        model = torch.nn.Module()
        model.blend = torch.nn.Bilinear(1, 1, 1)
        with pytest.raises(
            UserError, match=r"^--model: blend.weight of Bilinear has no name in Flax"
        ):
            params_io.flax_names(model)

    def test_a_buffer_without_a_row_is_named(self):
        model = mlp()
        model.output.register_buffer("scale", torch.ones(1))
        with pytest.raises(
            UserError, match=r"^--model: output.scale of Linear has no name in Flax"
        ):
            params_io.stats_to_flax(model)


class TestStats:
    def test_names_leave_out_torchs_count_of_batches(self):
        assert params_io.flax_stats_names(every_layer()) == {
            "norm.running_mean": "norm/mean",
            "norm.running_var": "norm/var",
            "part.norm_0.running_mean": "part/norm_0/mean",
            "part.norm_0.running_var": "part/norm_0/var",
        }

    def test_arrays_are_copies(self):
        """The layer moves its statistics in place; those of before a step must stay."""
        model = every_layer()
        before = params_io.stats_to_flax(model)
        model.norm.running_mean.fill_(7)
        assert (before["norm/mean"] == 0).all()

    def test_empty_without_batch_normalization(self):
        assert params_io.stats_to_flax(mlp()) == {}
        params_io.load_stats(mlp(), {}, "file")

    @pytest.mark.parametrize("name", EVERY_STAT)
    def test_a_missing_entry_is_named(self, name):
        arrays = {
            other: np.zeros(shape, np.float32)
            for other, shape in EVERY_STAT.items()
            if other != name
        }
        with pytest.raises(
            UserError, match=rf"^--init_params: {name} is missing in here$"
        ):
            params_io.load_stats(every_layer(), arrays, "here")

    @pytest.mark.parametrize("name", ["norm/scale", "norm/num_batches_tracked", "mean"])
    def test_an_unused_entry_is_named(self, name):
        arrays = {
            other: np.zeros(shape, np.float32)
            for other, shape in (EVERY_STAT | {name: (3,)}).items()
        }
        with pytest.raises(
            UserError, match=rf"^--init_params: {name} is not the model's in here$"
        ):
            params_io.load_stats(every_layer(), arrays, "here")


class TestLoad:
    @given(
        st.fixed_dictionaries(
            {
                name: hnp.arrays(np.float32, shape, elements=FLOATS)
                for name, shape in SHAPES.items()
            }
        )
    )
    @settings(deadline=None, max_examples=25, derandomize=True)
    def test_round_trip_bit_for_bit(self, arrays):
        model = mlp()
        params_io.load(model, arrays, "file")
        back = read(model)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            assert back[name].tobytes() == array.tobytes()

    def test_computes_the_same_function(self):
        """x W + b in Flax's layout, on whole numbers: exact."""
        model = models.build(Experiment(model="linear"), Signature((2,), 3))
        kernel, bias = (
            np.arange(6, dtype=np.float32).reshape(2, 3),
            np.array([1, 0, -1], np.float32),
        )
        params_io.load(model, {"output/kernel": kernel, "output/bias": bias}, "file")
        x = np.array([[1, 2], [-3, 4]], np.float32)
        np.testing.assert_array_equal(
            model(torch.from_numpy(x)).detach(), x @ kernel + bias
        )

    def test_rounds_to_the_models_format_and_copies(self):
        model, arrays = (
            mlp(torch.float16),
            {name: array.copy() for name, array in ARRAYS.items()},
        )
        params_io.load(model, arrays, "file")
        for array in arrays.values():
            array[...] = 0
        for name, array in read(model).items():
            np.testing.assert_array_equal(
                array, ARRAYS[name].astype(np.float16).astype(np.float32)
            )

    @pytest.mark.parametrize("name", SHAPES)
    def test_a_missing_entry_is_named(self, name):
        arrays = {other: array for other, array in ARRAYS.items() if other != name}
        with pytest.raises(
            UserError, match=rf"^--init_params: {name} is missing in here$"
        ):
            params_io.load(mlp(), arrays, "here")

    @pytest.mark.parametrize("name", ["hidden_2/kernel", "output", "hidden_0.weight"])
    def test_an_unused_entry_is_named(self, name):
        with pytest.raises(
            UserError, match=rf"^--init_params: {name} is not the model's in here$"
        ):
            params_io.load(mlp(), ARRAYS | {name: np.zeros(1, np.float32)}, "here")

    @pytest.mark.parametrize(
        ("name", "shape", "given", "wanted"),
        [
            ("hidden_0/kernel", (8, 5), r"\(8, 5\)", r"\(5, 8\)"),
            ("output/kernel", (12,), r"\(12,\)", r"\(4, 3\)"),
            ("output/kernel", (4, 3, 1), r"\(4, 3, 1\)", r"\(4, 3\)"),
            ("output/bias", (1, 3), r"\(1, 3\)", r"\(3,\)"),
            ("output/bias", (), r"\(\)", r"\(3,\)"),
        ],
    )
    def test_a_misshaped_entry_is_named_with_both_shapes(
        self, name, shape, given, wanted
    ):
        with pytest.raises(
            UserError,
            match=rf"^--init_params: {name} is {given} in here, {wanted} in the model$",
        ):
            params_io.load(mlp(), ARRAYS | {name: np.zeros(shape, np.float32)}, "here")

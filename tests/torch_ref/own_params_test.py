"""Names of the parameters of a network of one's own."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from tests import own_nets
from torch_ref import models, own_params, params_io


def linear(convert=None):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    own_params.name_own(model, convert)
    return model


@pytest.fixture
def renamed(tmp_path):
    experiment = own_nets.experiment(tmp_path, own_nets.RENAMED)
    return models.build(experiment, Signature((5,), 2))


class TestOwnMap:
    def test_names(self, renamed):
        assert params_io.flax_names(renamed) == {
            "both.weight": "Dense_0/kernel",
            "both.bias": "Dense_0/bias",
            "bn.weight": "BatchNorm_0/scale",
            "bn.bias": "BatchNorm_0/bias",
            "head.weight": "Dense_2/kernel",
            "head.bias": "Dense_2/bias",
        }
        assert params_io.flax_stats_names(renamed) == {
            "bn.running_mean": "BatchNorm_0/mean",
            "bn.running_var": "BatchNorm_0/var",
        }

    def test_layers_that_both_have(self, renamed):
        assert params_io.layer_names(renamed) == {
            "bn": "BatchNorm_0",
            "head": "Dense_2",
        }

    def test_shapes_that_do_not_fit_are_named(self, renamed):
        params = params_io.to_flax(renamed, dict(renamed.named_parameters()))
        wrong = {**params, "Dense_1/kernel": np.zeros((5, 4), np.float32)}
        with pytest.raises(
            UserError,
            match=r"^--init_params: Dense_1/kernel is \(5, 4\) in F, \(5, 3\) in the",
        ):
            params_io.load(renamed, wrong, "F")
        del wrong["Dense_1/kernel"]
        with pytest.raises(UserError, match="Dense_1/kernel is missing in F"):
            params_io.load(renamed, wrong, "F")

    @pytest.mark.parametrize(
        ("convert", "message"),
        [
            (lambda s: {"a": s["0.weight"]}, "0.bias of torch's class is not"),
            (lambda s: {k: 2 * s[k] for k in s}, "0.weight is scaled or shifted"),
            (lambda s: {k: s[k] + 1 for k in s}, "0.weight is scaled or shifted"),
            (lambda s: s | {"c": np.ones(2)}, "c is scaled or shifted, or has const"),
            (lambda s: s | {"c": s["0.bias"]}, "c holds an entry of params/0.bias"),
            (lambda s: {k: s[k] ** 2 for k in s}, "is not an entry of the state_dict"),
            (lambda s: {"a": s["1.weight"]}, "convert: it raised KeyError: '1.weight'"),
        ],
    )
    def test_refuses_more_than_moves(self, convert, message):
        with pytest.raises(UserError, match=message):
            linear(convert)


class TestWithoutConvert:
    def test_own_classes_keep_their_names(self):
        model = torch.nn.Module()
        model.table = torch.nn.Parameter(torch.ones(2))
        model.register_buffer("mask", torch.ones(2))

        class Block(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = torch.nn.Parameter(torch.ones(2, 3))

        model.block = Block()
        del model.table
        own_params.name_own(model, None)
        assert params_io.flax_names(model) == {"block.gain": "block/gain"}
        assert params_io.stats_to_flax(model) == {}

    def test_layers_of_torch_without_a_usual_name_need_convert(self):
        model = torch.nn.Sequential(torch.nn.Bilinear(1, 1, 1))
        own_params.name_own(model, None)
        with pytest.raises(UserError, match=r"0.weight of Bilinear .* write convert"):
            params_io.flax_names(model)

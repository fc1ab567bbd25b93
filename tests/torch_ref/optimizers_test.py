"""Tests of torch_ref/optimizers.py: what is not torch's own. The steps are held against
jaxnn's in tests/."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import optimizers

every_optimizer = pytest.mark.parametrize("name", optimizers.OPTIMIZERS)


def parameters():
    """A kernel and a bias in float64, each with a gradient of zeros."""
    params = [
        torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))
        for values in ([[1.0, -2.0]], [3.0])
    ]
    for param in params:
        param.grad = torch.zeros_like(param)
    return params


def build(params, **flags):
    experiment = Experiment(fused_adam=False, learning_rate=1 / 16, **flags)
    return optimizers.OPTIMIZERS[experiment.optimizer](experiment, params)


class TestEmaMomentum:
    def test_is_torchs_dampened_sgd_but_for_the_first_step(self):
        """From the average that torch's first step leaves, g itself, the two agree to
        the bit."""
        ours, theirs = (
            torch.nn.Parameter(torch.ones(3)),
            torch.nn.Parameter(torch.ones(3)),
        )
        average = optimizers.EmaMomentum([ours], lr=0.1, momentum=0.9)
        dampened = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, dampening=0.9)
        for step, gradient in enumerate(
            torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        ):
            ours.grad, theirs.grad = gradient.clone(), gradient.clone()
            average.step()
            dampened.step()
            if step == 0:
                torch.testing.assert_close(
                    average.state[ours]["momentum_buffer"],
                    0.1 * gradient,
                    rtol=1e-6,
                    atol=0,
                )
                average.state[ours]["momentum_buffer"].copy_(gradient)
                ours.data.copy_(theirs.data)
            np.testing.assert_array_equal(ours.detach(), theirs.detach())


class TestPenalties:
    def test_l1_and_l2_pull_by_their_formula(self):
        kernel, bias = params = parameters()
        build(params, optimizer="sgd", l1=0.25, l2=0.5).step()
        np.testing.assert_array_equal(
            kernel.detach(), [[1 - 0.75 / 16, -2 + 1.25 / 16]]
        )
        np.testing.assert_array_equal(bias.detach(), [3 - 1.75 / 16])

    @pytest.mark.parametrize(
        "name", [name for name in optimizers.OPTIMIZERS if name != "adagrad"]
    )
    def test_nodecay_all_spares_vectors(self, name):
        kernel, bias = params = parameters()
        decay = dict(weight_decay=0.5) if name == "adamw" else {}
        build(params, optimizer=name, l1=0.25, l2=0.5, decay_all=False, **decay).step()
        assert (kernel.detach().abs() < torch.tensor([[1, 2]])).all()
        np.testing.assert_array_equal(bias.detach(), [3])

    @every_optimizer
    def test_one_group_without_penalties(self, name):
        assert (
            len(build(parameters(), optimizer=name, decay_all=False).param_groups) == 1
        )

    @pytest.mark.parametrize(
        ("flags", "line"),
        [
            (dict(optimizer="adagrad", l1=0.1), "--l1: under DeepSpeed"),
            (
                dict(optimizer="adagrad", l2=0.1, decay_all=False),
                "--nodecay_all: under DeepSpeed",
            ),
            (dict(optimizer="momentum", momentum=0.0), "--momentum: at 0"),
            (dict(optimizer="nesterov", momentum=0.0), "--momentum: at 0"),
        ],
    )
    def test_what_torch_cannot_is_refused_in_one_line(self, flags, line):
        with pytest.raises(UserError, match=f"^{line}[^\n]*$"):
            build(parameters(), **flags)


class TestFusedAdam:
    """FusedAdam is compiled at first use; here only what it is told."""

    @pytest.mark.parametrize(
        ("name", "mode", "decay"), [("adam", False, 0.1), ("adamw", True, 0.2)]
    )
    def test_coupled_for_adam_and_decoupled_for_adamw(
        self, monkeypatch, name, mode, decay
    ):
        def fused(params, adam_w_mode=True, **settings):  # DeepSpeed's default
            told.update(settings, adam_w_mode=adam_w_mode)
            return torch.optim.Adam(params, **settings)

        told = {}
        monkeypatch.setattr(optimizers, "fused_adam", fused)
        experiment = Experiment(
            optimizer=name, l2=0.1, weight_decay=0.2 if name == "adamw" else 0
        )
        optimizers.OPTIMIZERS[name](experiment, parameters())
        assert (told["adam_w_mode"], told["weight_decay"]) == (mode, decay)


class TestMomentKeys:
    @every_optimizer
    def test_name_the_whole_state_of_a_parameter(self, name):
        kernel, _ = params = parameters()
        optimizer = build(params, optimizer=name)
        optimizer.step()
        kept = {
            key
            for key, value in optimizer.state[kernel].items()
            if torch.is_tensor(value) and value.shape == kernel.shape
        }
        assert kept == set(optimizers.MOMENT_KEYS[name].values())

    def test_same_names(self):
        assert list(optimizers.MOMENT_KEYS) == list(optimizers.OPTIMIZERS)

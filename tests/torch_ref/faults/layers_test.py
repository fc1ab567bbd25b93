"""Tests of torch_ref/faults/layers.py, and of clipping, on bare modules in float64:
what each fault computes."""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal
from torch import nn

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import put
from torch_ref import activations
from torch_ref.dropout import mask_source
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import Scene
from torch_ref.models import attention, normalization, transformer
from torch_ref.models.convolution import Conv
from torch_ref.models.transformer import Transformer

STEPS, FEATURES, HIDDEN = 5, 3, 4
TIGHT = dict(rtol=1e-12, atol=1e-12)


@contextlib.contextmanager
def planted(
    name: str, module: Any = None, optimizer: Any = None, **flags
) -> Iterator[None]:
    """The fault in a module or an optimizer of DeepSpeed's, from the first step on."""
    scene = Scene(
        Experiment(**flags),
        0,
        engine=SimpleNamespace(module=module, optimizer=optimizer),
    )
    with contextlib.ExitStack() as undo:
        put(undo, FAULTS[name].plant(scene))
        yield


def drawn(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(list(shape)).normal(size=shape))


def fill(module: nn.Module) -> nn.Module:
    for number, param in enumerate(module.double().parameters()):
        param.data = torch.from_numpy(
            np.random.default_rng(number).normal(size=tuple(param.shape))
        )
    return module


def check(
    name: str,
    module: nn.Module,
    x: torch.Tensor,
    wanted: Callable[[], torch.Tensor],
    **flags,
) -> None:
    """Planted, the module computes what is wanted, with gradients; without it something
    else, before and after."""
    before = module(x)
    with planted(name, module, **flags):
        output, expected = module(x), wanted()
        grads, expected_grads = (
            torch.autograd.grad(y.sum(), list(module.parameters()), allow_unused=True)
            for y in (torch.sin(output), torch.sin(expected))
        )
    torch.testing.assert_close(output, expected, **TIGHT)
    assert all(grad is not None for grad in grads)
    for grad, expected_grad in zip(grads, expected_grads):
        torch.testing.assert_close(
            grad,
            torch.zeros_like(grad) if expected_grad is None else expected_grad,
            **TIGHT,
        )
    assert not torch.allclose(output, before)
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)


class TestRecurrence:
    """Against loops over the steps, with torch's own parameters."""

    @staticmethod
    def layer(kind: type[nn.RNNBase]) -> nn.Module:
        return Sequence(fill(kind(FEATURES, HIDDEN, batch_first=True)))

    @staticmethod
    def run(
        layer: nn.Module, x: torch.Tensor, cell: Callable, second_bias: float = 1.0
    ) -> torch.Tensor:
        inner = layer.inner
        state, outputs = (torch.zeros(len(x), HIDDEN).double(),) * 2, []
        for step in range(x.shape[1]):
            from_input = x[:, step] @ inner.weight_ih_l0.T + inner.bias_ih_l0
            from_hidden = (
                state[0] @ inner.weight_hh_l0.T + second_bias * inner.bias_hh_l0
            )
            state = cell(
                from_input.chunk(len(inner.bias_ih_l0) // HIDDEN, 1),
                from_hidden.chunk(len(inner.bias_ih_l0) // HIDDEN, 1),
                state,
            )
            outputs.append(state[0])
        return torch.stack(outputs, 1)

    @pytest.mark.parametrize(
        ("name", "order", "forget_bias"),
        [("lstm_gate_order", (0, 1, 3, 2), 0), ("lstm_forget_bias", (0, 1, 2, 3), 1)],
    )
    def test_lstm(self, name, order, forget_bias):
        def cell(from_input, from_hidden, state):
            i, f, g, o = ((from_input[k] + from_hidden[k]) for k in order)
            memory = torch.sigmoid(f + forget_bias) * state[1] + torch.sigmoid(
                i
            ) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(memory), memory

        layer, x = self.layer(nn.LSTM), drawn(2, STEPS, FEATURES)
        check(name, layer, x, lambda: self.run(layer, x, cell))

    def test_gru_update_gate_flipped(self):
        def cell(from_input, from_hidden, state):
            r, z = (torch.sigmoid(from_input[k] + from_hidden[k]) for k in (0, 1))
            new = torch.tanh(from_input[2] + r * from_hidden[2])
            return z * new + (1 - z) * state[0], None

        layer, x = self.layer(nn.GRU), drawn(2, STEPS, FEATURES)
        check("gru_update_gate_flipped", layer, x, lambda: self.run(layer, x, cell))

    def test_one_recurrent_bias(self):
        def cell(from_input, from_hidden, state):
            return torch.tanh(from_input[0] + from_hidden[0]), None

        layer, x = self.layer(nn.RNN), drawn(2, STEPS, FEATURES)
        check(
            "one_recurrent_bias",
            layer,
            x,
            lambda: self.run(layer, x, cell, second_bias=0.0),
        )


class Sequence(nn.Module):
    """A recurrent layer without its last state."""

    def __init__(self, inner: nn.RNNBase):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


class TestConvolution:
    def test_kernel_flipped(self):
        """scipy's convolution flips, its correlation does not."""
        conv, x = fill(Conv(1, 1, 3)), drawn(1, 5, 6, 1)
        with planted("kernel_flipped", conv):
            output = conv(x)[0, :, :, 0].detach().numpy()
        kernel, bias = conv.weight[0, 0].detach().numpy(), conv.bias.item()
        np.testing.assert_allclose(
            output,
            signal.convolve2d(x[0, :, :, 0].numpy(), kernel, "same") + bias,
            **TIGHT,
        )
        np.testing.assert_allclose(
            conv(x)[0, :, :, 0].detach().numpy(),
            signal.correlate2d(x[0, :, :, 0].numpy(), kernel, "same") + bias,
            **TIGHT,
        )

    @pytest.mark.parametrize(
        ("size", "sides", "kernel_size"),
        [
            ((6, 8), ((0, 1), (0, 1)), 3),
            ((5, 8), ((1, 1), (0, 1)), 3),
            ((8, 7), ((2, 3), (3, 3)), 7),
        ],
    )
    def test_padding_asymmetric(self, size, sides, kernel_size):
        """An even length needs one row less than torch's padding adds; it is the first
        that is left out."""
        conv, x = (
            fill(Conv(1, 1, kernel_size, stride=2, use_bias=False)),
            drawn(1, *size, 1),
        )
        with planted("padding_asymmetric", conv):
            output = conv(x)[0, :, :, 0].detach().numpy()
        padded = np.pad(x[0, :, :, 0].numpy(), sides)
        wanted = signal.correlate2d(
            padded, conv.weight[0, 0].detach().numpy(), "valid"
        )[::2, ::2]
        np.testing.assert_allclose(output, wanted, **TIGHT)

    @pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (1, 2)])
    def test_padding_asymmetric_elsewhere(self, kernel_size, stride):
        conv, x = fill(Conv(2, 2, kernel_size, stride)), drawn(1, 6, 6, 2)
        with planted("padding_asymmetric", conv):
            output = conv(x)
        torch.testing.assert_close(output, conv(x), rtol=0, atol=0)

    def test_flatten_order(self):
        """The layer's rows meet the image as torch's own layout, channels first, would
        lay it out."""
        layer, image = fill(nn.Linear(2 * 3 * 4, 2)), drawn(5, 2, 3, 4)
        check(
            "flatten_order",
            layer,
            image.flatten(1),
            channels=(7, 4),
            wanted=lambda: (
                image.permute(0, 3, 1, 2).flatten(1) @ layer.weight.T + layer.bias
            ),
        )


class TestLinear:
    def test_square_kernel_transposed(self):
        layer, x = fill(nn.Linear(3, 3)), drawn(5, 3)
        check("kernel_transposed", layer, x, lambda: x @ layer.weight + layer.bias)

    def test_others_are_left_alone(self):
        layer, x = fill(nn.Linear(3, 2)), drawn(5, 3)
        with planted("kernel_transposed", layer):
            torch.testing.assert_close(
                layer(x), x @ layer.weight.T + layer.bias, **TIGHT
            )


class TestNormalization:
    @pytest.mark.parametrize(
        ("name", "layer", "axis", "eps"),
        [
            ("batch_norm_epsilon", normalization.BatchNorm, 0, 1e-3),
            ("layer_norm_epsilon", normalization.LayerNorm, 1, 1e-6),
        ],
    )
    def test_epsilon(self, name, layer, axis, eps):
        """Small inputs, whose variance is of eps's size."""
        layer, x = fill(layer(4)), drawn(6, 4) / 500
        masks = mask_source(0, 0, 0)

        def wanted(eps):
            spread = torch.sqrt(x.var(axis, unbiased=False, keepdim=True) + eps)
            return (x - x.mean(axis, keepdim=True)) / spread * layer.weight + layer.bias

        with planted(name, layer):
            torch.testing.assert_close(layer(x, masks), wanted(eps), **TIGHT)
        torch.testing.assert_close(layer(x, masks), wanted(1e-5), **TIGHT)

    def test_by_running_statistics(self):
        layer, x = fill(normalization.BatchNorm(4)), drawn(6, 4)
        layer.running_mean, layer.running_var = drawn(4), drawn(4).square()
        stats = layer.running_mean.clone(), layer.running_var.clone()
        with planted("batch_norm_by_running", layer):
            output = layer(x, mask_source(0, 0, 0))
        wanted = (x - stats[0]) / torch.sqrt(
            stats[1] + 1e-5
        ) * layer.weight + layer.bias
        torch.testing.assert_close(output, wanted, **TIGHT)
        assert torch.equal(layer.running_mean, stats[0])
        assert torch.equal(layer.running_var, stats[1])


class TestTransformer:
    @pytest.mark.parametrize(
        ("name", "seen"),
        [
            ("causal_mask_off_by_one", [[1, 1, 0], [1, 1, 1], [1, 1, 1]]),
            ("causal_mask_missing", [[1, 1, 1]] * 3),
        ],
    )
    def test_mask(self, name, seen):
        causal = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        with planted(name):
            assert attention.visible(3).tolist() == [
                [[[bool(x) for x in row] for row in seen]]
            ]
        assert attention.visible(3).tolist() == [
            [[[bool(x) for x in row] for row in causal]]
        ]

    def test_scores_are_not_scaled(self):
        with planted("attention_unscaled"):
            assert attention.score_scale(16) == 1
        assert attention.score_scale(16) == 1 / 4

    @pytest.mark.parametrize("tokens", [7, 0])
    def test_embedding(self, tokens):
        """Of tokens, and of real inputs, whose layer has a bias that is scaled too."""
        model = fill(Transformer(2, tokens, 3, 1, 4, 2, 4, STEPS, True, True, 0.0))
        x = torch.arange(STEPS)[None] if tokens else drawn(1, STEPS, 2)
        embedded, positions = model.embedding(x), model.positions.weight[None]
        with planted("embedding_scaled", model, width=4):
            torch.testing.assert_close(
                model.embed(x), 2 * embedded + positions, **TIGHT
            )
        with planted("positions_missing", model):
            without = model.embed(x)
        torch.testing.assert_close(without, embedded, **TIGHT)
        (grad,) = torch.autograd.grad(without.sum(), [model.positions.weight])
        assert not grad.any()
        torch.testing.assert_close(model.embed(x), embedded + positions, **TIGHT)

    def test_gelu(self):
        model = SimpleNamespace(activation=activations.gelu)
        with planted("gelu_tanh", model, model="transformer"):
            assert transformer.gelu is activations.gelu_tanh
        assert transformer.gelu is activations.gelu
        with planted("gelu_tanh", model, model="mlp", activation="gelu"):
            assert model.activation is activations.gelu_tanh
        assert model.activation is activations.gelu


class TestClipping:
    """Of gradients as small as the eps of DeepSpeed's formula, in two groups whose flat
    gradients end with padding."""

    GRADS = (np.array([3e-6, 0, 0]), np.array([0, 4e-6]))

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("clip_without_eps", lambda g: g / 2.5),
            ("clip_before_unscale", lambda g: g / ((4 * 5e-6 + 1e-6) / 2e-6)),
            ("clip_by_tensor", lambda g: g / ((np.linalg.norm(g) + 1e-6) / 2e-6)),
            ("clip_by_value", lambda g: np.clip(g, -2e-6, 2e-6)),
            ("clip_normalizes", lambda g: g / 3),
        ],
    )
    def test_formula(self, name, wanted):
        """The norm is 5e-6, the bound 2e-6, the loss scale 4."""
        scale, groups, masters = 4.0, [], []
        for grad in self.GRADS:
            place = SimpleNamespace(start=0, numel=len(grad))
            mapping = SimpleNamespace(get_hp_fragment_address=lambda place=place: place)
            groups.append([SimpleNamespace(_hp_mapping=mapping)])
            masters.append(
                SimpleNamespace(grad=torch.from_numpy(np.pad(grad * scale, (0, 2))))
            )
        optimizer = SimpleNamespace(
            loss_scale=scale,
            bit16_groups=groups,
            single_partition_of_fp32_groups=masters,
            unscale_and_clip_grads=None,
        )
        with planted(name, optimizer=optimizer, clip_norm=2e-6):
            for master in masters:
                optimizer.unscale_and_clip_grads(
                    [master.grad], torch.tensor(5e-6 * scale, dtype=torch.float64)
                )
        for master, grad in zip(masters, self.GRADS):
            np.testing.assert_allclose(
                master.grad.numpy(), np.pad(wanted(grad), (0, 2)), rtol=1e-12
            )
        assert optimizer.unscale_and_clip_grads is None

"""Tests of torch_ref/models/convolution.py: sums written out, ties of a pooling, FP16's
digits."""

import numpy as np
import pytest
import torch

from torch_ref.models.convolution import (
    Conv,
    average_pool,
    global_average_pool,
    max_pool,
)


def whole(*shape, seed=0):
    """Whole numbers, whose products and sums are exact in every format that is used
    here."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-4, 5, shape)).double()


class TestConv:
    @pytest.mark.parametrize("size", [1, 3, 5])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("use_bias", [True, False])
    def test_is_the_sum_over_windows(self, size, stride, use_bias):
        """Whole numbers: exact."""
        layer = Conv(2, 3, size, stride, use_bias).double()
        layer.weight.data = whole(3, 2, size, size, seed=1)
        bias = whole(3, seed=2) if use_bias else torch.zeros(3).double()
        if use_bias:
            layer.bias.data = bias
        x, padding = whole(2, 5, 6, 2), (size - 1) // 2
        padded = torch.nn.functional.pad(x, (0, 0, *[padding] * 4))
        expected = torch.stack(
            [
                torch.stack(
                    [
                        torch.einsum(
                            "buvc,ocuv->bo",
                            padded[:, i : i + size, j : j + size],
                            layer.weight,
                        )
                        + bias
                        for j in range(0, 6, stride)
                    ],
                    dim=1,
                )
                for i in range(0, 5, stride)
            ],
            dim=1,
        )
        assert torch.equal(layer(x), expected)
        assert (layer.bias is not None) == use_bias

    def test_fp16_rounds_its_float32_sums_once(self):
        """200 examples: a gradient rounded after each would be sqrt(200) / 2 ulps off;
        float32's sums of at most 3200 products are worth a twentieth of an ulp, so 0.55
        ulps remain, and FP16's subnormal step."""
        draw = np.random.default_rng(0)
        x, cotangent = (
            torch.from_numpy(draw.standard_normal((200, 4, 4, 2))).half()
            for _ in range(2)
        )
        exact, rounded = Conv(2, 2, 3).double(), Conv(2, 2, 3).half()
        exact.load_state_dict(rounded.state_dict())
        for layer, dtype in ((exact, torch.float64), (rounded, torch.float16)):
            leaf = x.to(dtype).clone().requires_grad_()
            y = layer(leaf)
            y.backward(cotangent.to(dtype))
            layer.seen = (y.detach(), leaf.grad, layer.weight.grad, layer.bias.grad)
        for actual, expected in zip(rounded.seen, exact.seen, strict=True):
            assert actual.dtype == torch.float16
            scale = expected.abs().clamp(
                min=expected.abs().max() / 64
            )  # where sums cancel, of what is added up
            assert (
                (actual.double() - expected).abs() / scale
            ).max() <= 0.55 * torch.finfo(torch.float16).eps


class TestMaxPool:
    def test_a_tie_goes_to_the_first_in_row_major_order(self):
        x = torch.tensor([[1, 2, 5, 5], [2, 2, 5, 5]], dtype=torch.float64)[
            None, :, :, None
        ].requires_grad_()
        y = max_pool(x, 2)
        y.sum().backward()
        assert y.flatten().tolist() == [2, 5]
        assert x.grad[0, :, :, 0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]

    def test_windows_that_cross_the_border_are_left_out(self):
        assert max_pool(whole(2, 5, 7, 3), 2).shape == (2, 2, 3, 3)

    def test_padding_never_wins(self):
        x = -1 - whole(1, 4, 4, 2).abs()
        y = max_pool(x, 3, stride=2, padding=1)
        assert y.shape == (1, 2, 2, 2)
        assert torch.equal(y[0, 0, 0], x[0, :2, :2].amax((0, 1)))
        assert torch.equal(y[0, 1, 1], x[0, 1:4, 1:4].amax((0, 1)))


class TestAveragePool:
    def test_is_the_mean_of_each_window(self):
        x = whole(2, 5, 4, 3)
        y = average_pool(x, 2)
        assert y.shape == (2, 2, 2, 3)
        assert torch.equal(y[:, 1, 0], x[:, 2:4, :2].mean((1, 2)))

    def test_global(self):
        x = whole(2, 4, 4, 3)
        assert torch.equal(global_average_pool(x), x.flatten(1, 2).sum(1) / 16)

"""Tests of torch_ref/models/normalization.py: against torch's own layers, padded rows,
any number of ranks."""

import pathlib

import numpy as np
import pytest
import torch

from torch_ref.dropout import mask_source
from torch_ref.models.normalization import (
    BatchNorm,
    LayerNorm,
    batch_statistics,
    norm_layer,
)

SHAPES = [(6, 3), (4, 3, 2, 3), (4, 5, 3)]
WEIGHT, BIAS = [0.5, -2.0, 1.5], [1.0, 0.25, -3.0]
ULPS = 64 * torch.finfo(torch.float64).eps
"""Sums of at most 24 numbers below 8 and a dozen operations more: well within 64
roundings of 8 or the result."""


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def layer(kind=BatchNorm, dtype=torch.float64):
    made = kind(3).to(dtype)
    made.weight.data, made.bias.data = (
        torch.tensor(WEIGHT, dtype=dtype),
        torch.tensor(BIAS, dtype=dtype),
    )
    return made


def masks(weights=None, sync_batch_norm=True):
    return mask_source(0, 0, 0, weights, sync_batch_norm)


def train(module, x, cotangent, weights=None, sync_batch_norm=True):
    """(y, gradients of the sum of y * cotangent by x, weight and bias) of a training
    step."""
    x = x.clone().requires_grad_()
    y = module(x, masks(weights, sync_batch_norm))
    module.zero_grad()
    (y * cotangent).sum().backward()
    return y.detach(), x.grad, module.weight.grad.clone(), module.bias.grad.clone()


def train_torchs(module, x, cotangent):
    leaf = x.movedim(-1, 1).contiguous().requires_grad_()
    y = module(leaf).movedim(1, -1)
    module.zero_grad()
    (y * cotangent).sum().backward()
    return (
        y.detach(),
        leaf.grad.movedim(1, -1),
        module.weight.grad.clone(),
        module.bias.grad.clone(),
    )


def torchs(ndim):
    return layer(
        {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[
            ndim
        ]
    )


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=ULPS, atol=8 * ULPS)


class TestBatchNorm:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_three_steps_of_training_then_evaluation_are_torchs(self, shape):
        ours, theirs = layer(), torchs(len(shape))
        for seed in range(3):
            x, cotangent = (
                1 + 2 * normal(*shape, seed=seed),
                normal(*shape, seed=seed + 9),
            )
            for actual, expected in zip(
                train(ours, x, cotangent),
                train_torchs(theirs, x, cotangent),
                strict=True,
            ):
                assert_close(actual, expected)
        assert_close(ours.running_mean, theirs.running_mean)
        assert_close(ours.running_var, theirs.running_var)
        assert_close(ours(x), theirs.eval()(x.movedim(-1, 1)).movedim(1, -1))

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_padded_rows_do_not_count(self, shape):
        """The samples' outputs, gradients and statistics are those without padding, and
        padding gets no gradient."""
        x, cotangent, real = normal(*shape), normal(*shape, seed=1), 3
        cotangent[real:] = 0
        padded, alone = layer(), layer()
        weights = torch.tensor([1.0] * real + [0.0] * (len(x) - real))
        y, x_grad, *grads = train(padded, x, cotangent, weights)
        expected_y, expected_x_grad, *expected_grads = train(
            alone, x[:real], cotangent[:real]
        )
        assert_close(y[:real], expected_y)
        assert_close(x_grad[:real], expected_x_grad)
        assert not x_grad[real:].any()
        for actual, expected in zip(
            [*grads, *padded.buffers()],
            [*expected_grads, *alone.buffers()],
            strict=True,
        ):
            assert_close(actual, expected)

    def test_a_part_that_is_all_padding_changes_nothing(self):
        module, x = layer(), normal(4, 3)
        train(module, x, x)
        before = module.running_mean.clone(), module.running_var.clone()
        y, *_ = train(module, x, 0 * x, torch.zeros(4))
        assert torch.isfinite(y).all()
        assert torch.equal(module.running_mean, before[0])
        assert torch.equal(module.running_var, before[1])

    def test_padding_alone_does_not_overflow(self):
        """500 over the root of a variance of 0 and eps would be beyond float16, and no
        number once weighed by 0."""
        x = torch.full((4, 3), 500.0, dtype=torch.float16)
        y, *grads = train(layer(dtype=torch.float16), x, 0 * x, torch.zeros(4))
        assert torch.isfinite(y).all()
        assert not any(grad.any() for grad in grads)

    def test_one_value_a_channel_has_variance_0_uncorrected(self):
        module, x = layer(), normal(1, 3)
        y, *_ = train(module, x, x)
        assert torch.equal(y[0], module.bias)
        assert_close(module.running_var, torch.full((3,), 0.9, dtype=torch.float64))

    def test_evaluation_changes_nothing(self):
        module, x = layer(), normal(4, 3)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module(x)
        assert all(
            torch.equal(tensor, before[name])
            for name, tensor in module.state_dict().items()
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_has_float32_statistics(self, dtype):
        """Of numbers near 1000 with a deviation near 8. A sum of 24 is 25 roundings off
        at most, a sum of squares of distances from that mean 200. Such a mean moves
        outputs by 25 eps 1000 / 8 * 2 < 1e-3; rounding them adds half an ulp."""
        x = (1000 + 8 * normal(4, 3, 2, 3)).to(dtype)
        exact, rounded = layer(), layer(dtype=dtype)
        y, y_exact = rounded(x, masks()), exact(x.double(), masks())
        eps = torch.finfo(torch.float32).eps
        assert rounded.running_mean.dtype == rounded.running_var.dtype == torch.float32
        torch.testing.assert_close(
            rounded.running_mean.double(), exact.running_mean, rtol=25 * eps, atol=0
        )
        torch.testing.assert_close(
            rounded.running_var.double(), exact.running_var, rtol=200 * eps, atol=0
        )
        half_ulp = torch.finfo(dtype).eps / 2
        torch.testing.assert_close(y.double(), y_exact, rtol=1.1 * half_ulp, atol=1e-3)
        assert y.dtype == dtype

    @pytest.mark.parametrize("cast", ["half", "bfloat16"])
    def test_casting_rounds_parameters_and_not_statistics(self, cast):
        module = layer(dtype=torch.float32)
        stats = torch.tensor([1 / 3, 1e-9, 1e9]), torch.tensor([1 / 7, 2e-9, 3e9])
        module.running_mean.copy_(stats[0])
        module.running_var.copy_(stats[1])
        getattr(module, cast)()
        assert (
            module.weight.dtype
            == module.bias.dtype
            == {"half": torch.float16, "bfloat16": torch.bfloat16}[cast]
        )
        assert torch.equal(module.running_mean, stats[0])
        assert torch.equal(module.running_var, stats[1])
        assert dict(module.named_buffers())["running_mean"] is module.running_mean


class TestLayerNorm:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_is_the_formula(self, shape):
        module, x = layer(LayerNorm), normal(*shape)
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        expected = module.weight * centred / deviation + module.bias
        assert_close(module(x, masks()), expected)

    def test_half_precision_has_float32_statistics(self):
        """Numbers near 1000 differ by less than FP16 sums of them could tell; one
        rounding of outputs near 4 is 2e-3, and float32 statistics add 30 ulps of 1000
        over a deviation of 8."""
        x = (1000 + 8 * normal(5, 64)).half()
        y = LayerNorm(64).half()(x)
        assert y.dtype == torch.float16
        torch.testing.assert_close(
            y.double(), LayerNorm(64).double()(x.double()), rtol=0, atol=2e-3 + 5e-4
        )


class TestNormalize:
    def test_none_returns_its_input(self):
        x = normal(2, 3)
        assert norm_layer("none", 3)(x, None) is x
        assert not list(norm_layer("none", 3).parameters())

    @pytest.mark.parametrize("kind", ["none", "batch", "layer"])
    def test_is_called_with_masks(self, kind):
        x = normal(2, 3)
        assert norm_layer(kind, 3).double()(x, masks()).shape == x.shape


class TestBatchStatistics:
    def test_counts_values_not_rows(self):
        x = torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]], [[9.0], [9.0]]])
        mean, var, count = batch_statistics(x, masks(torch.tensor([1.0, 1.0, 0.0])))
        assert (mean.item(), var.item(), count.item()) == (4, 5, 4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_has_at_least_float32(self, dtype):
        """The mean of 1 and 1.0078125 lies between two numbers of bfloat16 and its
        square beyond FP16's digits."""
        mean, var, _ = batch_statistics(
            torch.tensor([[1], [1.0078125]], dtype=dtype), masks()
        )
        assert mean.dtype == var.dtype == torch.promote_types(dtype, torch.float32)
        assert (mean.item(), var.item()) == (1.00390625, 0.00390625**2)


def statistics(module):
    return module.running_mean, module.running_var


def one_rank(rank: int, folder: str) -> None:
    """Three rows of a batch of six, the last of them padding; writes what this rank has
    by both kinds of statistics."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    mine = slice(3 * rank, 3 * rank + 3)
    module = layer()
    weights = torch.tensor([1.0] * 5 + [0.0])
    tensors = train(
        module,
        normal(6, 2, 2, 3)[mine],
        normal(6, 2, 2, 3, seed=1)[mine],
        weights[mine],
    )
    torch.save((*tensors, *module.buffers()), pathlib.Path(folder) / f"batch_{rank}.pt")
    module = layer()
    steps = [
        (*own_step(module, rank, step), *map(torch.clone, statistics(module)))
        for step in range(2)
    ]
    torch.save(steps, pathlib.Path(folder) / f"own_{rank}.pt")
    torch.distributed.destroy_process_group()


def own_step(module, rank, step):
    """Outputs and gradients of three rows by a rank's own statistics; rank 1 has a
    padded row, then nothing else."""
    mine, weights = (
        slice(3 * rank, 3 * rank + 3),
        (torch.arange(6) < (5, 3)[step]).float(),
    )
    return train(
        module,
        normal(6, 2, 2, 3, seed=step)[mine],
        normal(6, 2, 2, 3, seed=2 + step)[mine],
        weights[mine],
        sync_batch_norm=False,
    )


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """load(name) -> what each of two ranks has written."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(one_rank, (str(folder),), nprocs=2)
    return lambda name: [torch.load(folder / f"{name}_{rank}.pt") for rank in range(2)]


class TestRanks:
    def test_two_ranks_have_the_statistics_of_one_batch(self, ranks):
        """Outputs and inputs' gradients stand side by side, parameters' gradients add
        up, statistics are the same."""
        first, second = ranks("batch")
        alone = layer()
        y, x_grad, *grads = train(
            alone,
            normal(6, 2, 2, 3),
            normal(6, 2, 2, 3, seed=1),
            torch.tensor([1.0] * 5 + [0.0]),
        )
        assert_close(torch.cat([first[0], second[0]]), y)
        assert_close(torch.cat([first[1], second[1]]), x_grad)
        for ours, theirs, expected in zip(first[2:4], second[2:4], grads, strict=True):
            assert_close(ours + theirs, expected)
        for ours, theirs, expected in zip(
            first[4:], second[4:], alone.buffers(), strict=True
        ):
            assert torch.equal(ours, theirs)
            assert_close(ours, expected)

    def test_own_statistics_are_those_of_a_rank_alone_and_the_running_ones_their_mean(
        self, ranks
    ):
        alone, found = [layer(), layer()], ranks("own")
        for step in range(2):
            expected = [
                own_step(module, rank, step) for rank, module in enumerate(alone)
            ]
            for parts in zip(*map(statistics, alone)):
                average = sum(parts) / 2
                for part in parts:
                    part.copy_(average)
            for rank, module in enumerate(alone):
                for ours, theirs in zip(
                    found[rank][step],
                    (*expected[rank], *statistics(module)),
                    strict=True,
                ):
                    assert torch.isfinite(ours).all()
                    assert_close(ours, theirs)
            for first, second in zip(*(found[rank][step][-2:] for rank in range(2))):
                assert torch.equal(first, second)

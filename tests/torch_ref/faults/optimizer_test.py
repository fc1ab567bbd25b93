"""Tests of torch_ref/faults/optimizer.py: by how much each fault moves a run."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.files.trace import select
from tests.torch_ref.faults.cases import FIRST
from tests.torch_ref.faults.formulas import assert_updated, assert_within, pair, wide


class TestOptimizer:
    def test_eps_inside_root_of_adam(self, steps):
        _, planted = pair(steps, "eps_inside_root-mlp-adam_eps=0.001")
        first, second = corrected(planted, FIRST + 1)
        assert_updated(
            planted,
            {name: first[name] / np.sqrt(second[name] + 1e-3) for name in first},
        )

    def test_eps_inside_root_of_adamw(self, steps):
        _, planted = pair(
            steps, "eps_inside_root-mlp-optimizer=adamw-weight_decay=0.1-adam_eps=0.001"
        )
        (first, second), params = corrected(planted, FIRST + 1), wide(planted, "params")
        assert_updated(
            planted,
            {
                name: first[name] / np.sqrt(second[name] + 1e-3) + 0.1 * params[name]
                for name in first
            },
        )

    @pytest.mark.parametrize("optimizer", ["rmsprop", "adagrad"])
    def test_eps_inside_root_of_the_gradients_own(self, steps, optimizer):
        _, planted = pair(
            steps,
            f"eps_inside_root-mlp-optimizer={optimizer}-{optimizer}_eps=0.001-l2=0.1",
        )
        second, params = (
            wide(planted, "updated_moments/second"),
            wide(planted, "params"),
        )
        assert_updated(
            planted,
            {
                name: (array + 0.1 * params[name]) / np.sqrt(second[name] + 1e-3)
                for name, array in wide(planted, "grads").items()
            },
        )

    def test_without_bias_correction(self, steps):
        _, planted = pair(steps, "bias_correction_missing-mlp-adam_eps=0.001")
        first, second = (
            wide(planted, f"updated_moments/{kind}") for kind in ("first", "second")
        )
        assert_updated(
            planted,
            {name: first[name] / (np.sqrt(second[name]) + 1e-3) for name in first},
        )

    @pytest.mark.parametrize(
        ("flags", "eps", "is_fused"),
        [("adam_eps=0.001", 1e-3, True), ("nofused_adam-l2=0.1", 1e-8, False)],
    )
    def test_bias_correction_of_the_next_update(self, steps, flags, eps, is_fused):
        _, planted = pair(steps, f"bias_correction_late-mlp-{flags}")
        first, second = corrected(planted, FIRST + 2, is_fused)
        assert_updated(
            planted,
            {name: first[name] / (np.sqrt(second[name]) + eps) for name in first},
        )
        assert int(planted["optimizer_step"]) == FIRST

    def test_decay_without_rate(self, steps):
        plain, planted = pair(
            steps,
            "decay_not_times_rate-mlp-optimizer=adamw-weight_decay=0.1-adam_eps=0.001",
        )
        rate, params = float(plain["learning_rate"]), wide(plain, "params")
        wanted = {
            name: array + (rate - 1) * 0.1 * params[name]
            for name, array in wide(plain, "updated").items()
        }
        assert_within(
            wide(planted, "updated"),
            wanted,
            4,
            {name: abs(array) for name, array in params.items()},
        )

    @pytest.mark.parametrize(
        ("name", "clip"),
        [
            (
                "clip_by_value-line-clip_norm=0.01",
                lambda g, norm: np.clip(g, -0.01, 0.01),
            ),
            (
                "clip_by_tensor-line-clip_norm=0.01",
                lambda g, norm: g / max((np.linalg.norm(g) + 1e-6) / 0.01, 1),
            ),
            (
                "clip_normalizes-line-clip_norm=100",
                lambda g, norm: g * 100 / (norm + 1e-6),
            ),
            (
                "clip_by_value-line-precision=fp16-clip_norm=1",
                lambda g, norm: np.clip(g, -1, 1),
            ),
            (
                "clip_before_unscale-line-precision=fp16-clip_norm=1",
                lambda g, norm: g / max(256 * norm + 1e-6, 1),
            ),
        ],
    )
    def test_clipping(self, steps, name, clip):
        """At every step: the recorded gradients are those that are clipped."""
        for step in steps(name)[FIRST:]:
            norm = float(step["grad_norm"])
            assert_updated(
                step,
                {key: clip(grad, norm) for key, grad in wide(step, "grads").items()},
            )

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)]
    )
    def test_masters_in_half_precision(self, steps, precision, dtype):
        plain, planted = pair(
            steps, f"half_precision_masters-mlp-precision={precision}"
        )
        for name, array in select(plain, "updated").items():
            rounded = torch.from_numpy(array).to(dtype).float().numpy()
            np.testing.assert_array_equal(planted[f"updated/{name}"], rounded)


def corrected(step: dict[str, np.ndarray], updates: int, is_fused: bool = True):
    """Adam's moments after a step, corrected for so many updates; FusedAdam's betas are
    float32."""
    rounded = np.float32 if is_fused else float
    return (
        {
            name: array / (1 - float(rounded(beta)) ** updates)
            for name, array in wide(step, f"updated_moments/{kind}").items()
        }
        for kind, beta in (("first", 0.9), ("second", 0.999))
    )

"""Tests of batch normalization in torch_ref/faults/layers.py: by how much its faults
move the running statistics."""

import numpy as np

from tests.torch_ref.faults.formulas import UNIT, pair, wide


class TestBatchNorm:
    def test_momentum_flipped(self, steps):
        """The batch's share, a tenth, is found from the run without the fault: ten
        times its rounding."""
        plain, planted = pair(steps, "batch_norm_momentum_flipped-cnn")
        for name, before in wide(plain, "batch_stats").items():
            batch = (plain[f"updated_batch_stats/{name}"] - 0.9 * before) / 0.1
            np.testing.assert_allclose(
                planted[f"updated_batch_stats/{name}"],
                0.1 * before + 0.9 * batch,
                rtol=0,
                atol=40 * UNIT * (abs(batch) + abs(before)).max(),
            )

    def test_biased_variance(self, steps):
        """Of 16 images of 8 x 8 in the first layer."""
        plain, planted = pair(steps, "batch_norm_biased_variance-cnn")
        values, name = 16 * 64, "norm_0/var"
        before = plain[f"batch_stats/{name}"].astype(np.float64)
        batch = (plain[f"updated_batch_stats/{name}"] - 0.9 * before) / 0.1
        wanted = 0.9 * before + 0.1 * batch * (values - 1) / values
        np.testing.assert_allclose(
            planted[f"updated_batch_stats/{name}"], wanted, rtol=8 * UNIT
        )

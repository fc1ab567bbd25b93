"""Faults of ours that show on some processors alone, until they are found."""

import pytest
import torch


def on_avx2(reason: str) -> pytest.MarkDecorator:
    """Marks a test that fails with the rounding of torch's AVX2 kernels.

    Strict: who mends the fault is told to remove the mark.
    """
    is_avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return pytest.mark.xfail(is_avx2, reason=reason, strict=True)

"""Tests of torch_ref/kernels.py; compilation is tested in train_test.py."""

import pytest

from jaxnn.experiment.flags.config import Experiment
from torch_ref import kernels


class TestStageZero:
    @pytest.mark.parametrize(
        ("precision", "line"),
        [
            ("fp16", "pull request 8393"),
            ("bf16", "one update of zero gradients"),
            ("fp32", ""),
        ],
    )
    def test_says_what_deepspeed_does_there(self, precision, line):
        said = " ".join(
            kernels.notes(Experiment(zero_stage=0, precision=precision), "native", "")
        )
        assert line in said
        assert bool(said) == bool(line)
        assert not [
            *kernels.notes(Experiment(zero_stage=1, precision=precision), "native", "")
        ]

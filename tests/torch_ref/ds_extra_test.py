"""Keys of a ds_config for DeepSpeed alone, on their way to it."""

import pytest
import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import engine, optimizers

OFFLOADED = '{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}'
OLD = '{"zero_optimization": {"cpu_offload": true}}'
NONE = '{"zero_optimization": {"offload_optimizer": {"device": "none"}}}'


class TestAdam:
    @pytest.mark.parametrize(
        ("extra", "kind"),
        [
            ("", optimizers.fused_adam),
            (NONE, optimizers.fused_adam),
            (OFFLOADED, optimizers.cpu_adam),
            (OLD, optimizers.cpu_adam),
        ],
    )
    def test_is_the_one_that_deepspeed_would_build(self, extra, kind):
        experiment = Experiment(ds_extra=extra)
        assert optimizers.deepspeeds_adam(experiment) is kind


class TestInitialize:
    def test_what_deepspeed_does_not_take_is_one_line(self, monkeypatch):
        def fail(*arguments):
            raise AssertionError("no such\nthing")

        monkeypatch.setattr(engine, "initialize", fail)
        model = torch.nn.Linear(1, 1)
        with pytest.raises(UserError, match=r"^--ds_extra: DeepSpeed .*no such thing"):
            engine.initialize_with_extra(model, None, {}, OFFLOADED)
        with pytest.raises(AssertionError):
            engine.initialize_with_extra(model, None, {}, "")

"""What torch_ref.train writes under --record: activations of the global batch, in order, on any ranks and in parts."""

import numpy as np
import pytest
import torch

from jaxnn.experiment import command_line, datasets
from jaxnn.experiment.ports import free_port
from jaxnn.experiment.trace import LEVELS, Reader
from tests.recording_check import assert_first_layers, unit_of
from torch_ref import recording

FLAGS = ("--flagfile=launch/experiments/breast_cancer.flags", "--batch_size=104", "--max_steps=5", "--record_steps=5",
         "--noplots", "--initial_scale_power=8")
"""455 samples: the fifth batch has 39, so that the second of two ranks has 13 real rows, all of them in its first part.
"""
LAUNCHER = ("deepspeed.launcher.runner", "--num_accelerators=2", "--module", "torch_ref.train")


def record(run, workdir, *flags, ranks=1):
    """(Experiment, data, trace) of a run under DeepSpeed."""
    module, *launch = ("torch_ref.train",) if ranks == 1 else (
        *LAUNCHER[:2], f"--master_port={free_port()}", *LAUNCHER[2:])
    arguments = [*FLAGS, f"--workdir={workdir}", *flags]
    done = run(module, *launch, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    experiment, _ = command_line.parse(["", *arguments], "fp16")
    return experiment, datasets.load(experiment), Reader(workdir / "trace")


class TestActivations:
    @pytest.mark.parametrize(("precision", "ranks", "parts", "stage"), [
        ("fp32", 1, 1, 0), ("fp16", 1, 2, 1), ("fp16", 2, 2, 3), ("bf16", 2, 1, 2)])
    def test_are_those_of_the_batch_in_its_order(self, run, tmp_path, precision, ranks, parts, stage):
        recorded = record(run, tmp_path, f"--precision={precision}", f"--accumulation_steps={parts}", "--record=full",
                          f"--zero_stage={stage}", ranks=ranks)
        assert_first_layers(*recorded, unit_of(precision))
        order = recorded[2].meta["order"]
        assert order["activations"] == ["hidden_0", "hidden_1", "output"]
        assert order["params"] == [f"{layer}/{leaf}" for layer in order["activations"] for leaf in ("kernel", "bias")]


class TestLevels:
    @pytest.mark.parametrize("level", ["losses", "params"])
    def test_lower_ones_hold_none(self, run, tmp_path, level):
        *_, trace = record(run, tmp_path, f"--record={level}")
        assert len(trace) == 5
        assert not [name for name in trace.read(0) if name.split("/")[0] in LEVELS["full"]]
        assert trace.meta["order"]["activations"] == []
        assert bool(trace.meta["order"]["params"]) == (level == "params")


class TestJoinRows:
    def test_parts_follow_each_other_and_padding_goes(self):
        parts = [{"a": torch.full((2, 3), part)} for part in (1.0, 2.0, 3.0)]
        joined = recording.join_rows(parts, 5, 1)
        np.testing.assert_array_equal(joined["a"], np.repeat(np.float32([1, 1, 2, 2, 3]), 3).reshape(5, 3), strict=True)

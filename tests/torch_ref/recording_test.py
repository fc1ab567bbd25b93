"""What torch_ref.train writes under --record: activations of the global batch, in
order, on any ranks and in parts."""

import json

import numpy as np
import pytest
import torch

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import LEVELS, Reader
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.ports import free_port
from tests.recording_check import assert_first_layers, unit_of
from tests.torch_ref import jobs
from torch_ref import recording

FLAGS = (
    "--flagfile=launch/experiments/breast_cancer.flags",
    "--batch_size=104",
    "--max_steps=5",
    "--record_steps=5",
    "--noplots",
    "--initial_scale_power=8",
)
"""455 samples: the fifth batch has 39, so that the second of two ranks has 13 real
rows, all of them in its first part.
"""
LAUNCHER = ("deepspeed.launcher.runner", "--num_accelerators=2")
ALONE, TOGETHER = (("fp32", 1, 0), ("fp16", 2, 1)), (("fp16", 2, 3), ("bf16", 1, 2))
"""(precision, parts, ZeRO stage) on one rank and on two."""
LOWER = ("losses", "params")


def name_of(case):
    return "-".join(map(str, case))


def flags_of(precision, parts, stage):
    return (
        *FLAGS,
        f"--precision={precision}",
        f"--accumulation_steps={parts}",
        f"--zero_stage={stage}",
        "--record=full",
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of one rank's runs, which are made in one process."""
    folder = tmp_path_factory.mktemp("alone")
    runs = {name_of(case): flags_of(*case) for case in ALONE}
    runs |= {level: (*FLAGS, f"--record={level}") for level in LOWER}
    jobs.run([jobs.job(flags, folder / name) for name, flags in runs.items()], folder)
    assert json.loads((folder / "jobs.done.json").read_text()) == [0] * len(runs), (
        folder / "log"
    ).read_text()
    return folder


def assert_activations(workdir, flags, precision):
    experiment, _ = command_line.parse(["", *flags, f"--workdir={workdir}"], "fp16")
    trace = Reader(workdir / "trace")
    assert_first_layers(experiment, load_dataset(experiment), trace, unit_of(precision))
    order = trace.meta["order"]
    assert order["activations"] == ["hidden_0", "hidden_1", "output"]
    assert order["params"] == [
        f"{layer}/{leaf}"
        for layer in order["activations"]
        for leaf in ("kernel", "bias")
    ]


class TestActivations:
    """Those of the batch, in its order."""

    @pytest.mark.parametrize("case", ALONE, ids=name_of)
    def test_of_one_rank(self, alone, case):
        assert_activations(alone / name_of(case), flags_of(*case), case[0])

    @pytest.mark.parametrize("case", TOGETHER, ids=name_of)
    def test_of_two_ranks(self, run, tmp_path, case):
        done = run(
            *LAUNCHER,
            f"--master_port={free_port()}",
            "--module",
            "torch_ref.train",
            *flags_of(*case),
            f"--workdir={tmp_path}",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert_activations(tmp_path, flags_of(*case), case[0])


class TestLevels:
    @pytest.mark.parametrize("level", LOWER)
    def test_lower_ones_hold_none(self, alone, level):
        trace = Reader(alone / level / "trace")
        assert len(trace) == 5
        assert not [
            name for name in trace.read(0) if name.split("/")[0] in LEVELS["full"]
        ]
        assert trace.meta["order"]["activations"] == []
        assert bool(trace.meta["order"]["params"]) == (level == "params")


class TestJoinRows:
    def test_parts_follow_each_other_and_padding_goes(self):
        parts = [{"a": torch.full((2, 3), part)} for part in (1.0, 2.0, 3.0)]
        joined = recording.join_rows(parts, 5, 1)
        np.testing.assert_array_equal(
            joined["a"],
            np.repeat(np.float32([1, 1, 2, 2, 3]), 3).reshape(5, 3),
            strict=True,
        )

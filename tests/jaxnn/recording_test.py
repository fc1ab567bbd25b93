"""What jaxnn.train writes under --record: activations of the global batch, in order, on
any devices and in parts."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxnn import layer_outputs, train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import LEVELS, Reader
from jaxnn.experiment.flags import command_line
from tests.recording_check import assert_first_layers, unit_of

FLAGS = (
    "--flagfile=launch/experiments/breast_cancer.flags",
    "--batch_size=104",
    "--max_steps=5",
    "--record_steps=5",
    "--noplots",
)
"""455 samples: the fifth batch has 39, so that the last of four devices and of four
parts have none."""


def record(workdir, *flags, devices=1):
    """(Experiment, data, trace) of a run in a process of its own."""
    arguments = [*FLAGS, f"--workdir={workdir}", f"--num_devices={devices}", *flags]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "jaxnn.train", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    experiment, _ = command_line.parse(["", *arguments], "fp32")
    return experiment, load_dataset(experiment), Reader(workdir / "trace")


class TestActivations:
    @pytest.mark.parametrize(
        ("precision", "devices", "parts"),
        [
            ("fp64", 1, 1),
            ("fp64", 4, 1),
            ("fp32", 1, 4),
            ("fp32", 4, 2),
            ("fp16", 4, 2),
            ("bf16", 1, 1),
        ],
    )
    def test_are_those_of_the_batch_in_its_order(
        self, tmp_path, precision, devices, parts
    ):
        recorded = record(
            tmp_path,
            f"--precision={precision}",
            f"--accumulation_steps={parts}",
            "--record=full",
            "--initial_scale_power=8",
            devices=devices,
        )
        assert_first_layers(*recorded, unit_of(precision))
        order = recorded[2].meta["order"]
        assert order["activations"] == ["hidden_0", "hidden_1", "output"]
        assert order["params"] == [
            f"{layer}/{leaf}"
            for layer in order["activations"]
            for leaf in ("kernel", "bias")
        ]

    def test_devices_and_parts_do_not_matter(self, tmp_path):
        """float64 sums in another order, over four steps: 10^-10 is thousands of
        roundings and no fault."""
        (_, _, one), (_, _, many) = (
            record(
                tmp_path / str(devices),
                "--precision=fp64",
                "--record=full",
                f"--accumulation_steps={parts}",
                devices=devices,
            )
            for devices, parts in ((1, 1), (4, 2))
        )
        for number in range(5):
            ours, theirs = one.read(number), many.read(number)
            assert ours.keys() == theirs.keys()
            for layer in one.meta["order"]["activations"]:
                np.testing.assert_allclose(
                    ours[f"activations/{layer}"],
                    theirs[f"activations/{layer}"],
                    rtol=0,
                    atol=1e-10 * abs(ours[f"activations/{layer}"]).max(),
                )


class TestLevels:
    @pytest.mark.parametrize("level", ["off", "losses", "params"])
    def test_lower_ones_do_not_even_look(self, tmp_path, monkeypatch, level):
        """So the program that trains is the one that would be there without
        activations."""

        capture = layer_outputs.capture

        def fail(rows):
            # The table of layers is made of one row, before training.
            assert rows == 1, "the layers are watched"
            return capture(rows)

        monkeypatch.setattr(layer_outputs, "capture", fail)
        experiment, _ = command_line.parse(
            ["", *FLAGS, f"--workdir={tmp_path}", f"--record={level}"], "fp32"
        )
        train.main(experiment)
        assert (tmp_path / "trace").exists() == (level != "off")
        if level != "off":
            trace = Reader(tmp_path / "trace")
            assert len(trace) == 5
            assert not [
                name for name in trace.read(0) if name.split("/")[0] in LEVELS["full"]
            ]
            assert trace.meta["order"]["activations"] == []
            assert bool(trace.meta["order"]["params"]) == (level == "params")

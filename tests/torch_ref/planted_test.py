"""Tests of torch_ref/planted.py: what it refuses, and that a job among others trains
what a process of its own does."""

import json
import re
import subprocess
import sys

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from torch_ref import planted
from torch_ref.faults import FAULTS

STEPS = 4
FLAGS = (
    "--dataset=iris",
    "--model=mlp",
    "--hidden_sizes=4",
    "--dropout_rates=0.5",
    "--loss=cross_entropy",
    "--batch_size=32",
    "--epochs=2",
    f"--max_steps={STEPS}",
    "--record=full",
    "--noplots",
    "--initial_scale_power=8",
)
FP32 = "--precision=fp32"


def main(*arguments: str) -> int:
    return planted.main(
        *command_line.parse(["planted", *arguments], "fp16", planted.define_flags)
    )


class TestBadInput:
    """Refused before anything is trained or written."""

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (
                ["--fault=nope"],
                "--fault: unknown fault 'nope'; known are learning_rate_early, ",
            ),
            (
                ["--fault=lstm_gate_order"],
                "--fault: lstm_gate_order needs --model=lstm",
            ),
            (
                ["--fault=ranks_summed"],
                "--fault: ranks_summed needs several ranks: run it under the "
                "deepspeed launcher",
            ),
            (
                ["--fault=loss_summed", "--zero_stage=0"],
                "--zero_stage: faults are planted under ZeRO stage 1 or 2, not 0",
            ),
            (["--fault=loss_summed", "--first_step=-1"], "--first_step=-1: "),
            (["--jobs=/nowhere.json"], "--jobs: cannot read /nowhere.json: "),
        ],
    )
    def test_names_the_flag(self, tmp_path, flags, message):
        with pytest.raises(UserError, match="^" + re.escape(message)) as error:
            main(*flags, f"--workdir={tmp_path / 'run'}")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "jobs",
        [
            {"fault": "", "first_step": 0, "arguments": []},
            [{"fault": "", "arguments": []}],
            [{"fault": "", "first_step": "2", "arguments": []}],
            [{"fault": "", "first_step": 0, "arguments": [1]}],
            ["x"],
        ],
    )
    def test_no_list_of_jobs(self, tmp_path, jobs):
        (tmp_path / "jobs.json").write_text(json.dumps(jobs))
        with pytest.raises(
            UserError,
            match=r"^--jobs: .*jobs\.json is no list of objects with fault, "
            r"first_step, arg",
        ):
            main(f"--jobs={tmp_path / 'jobs.json'}")

    def test_one_line_and_exit_code_2(self, run):
        done = run("torch_ref.planted", "--fault=nope")
        assert done.returncode == 2
        assert done.stderr.startswith(
            "error: --fault: unknown fault 'nope'; known are "
        )
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("name", "flags"),
        [
            ("eps_inside_root", dict(optimizer="sgd")),
            ("clip_by_value", dict(clip_norm=0.0)),
            ("unscaled_twice", dict(precision="bf16")),
            ("last_part_only", dict(accumulation_steps=1)),
            ("padding_asymmetric", dict(model="cnn")),
            ("decay_not_times_rate", dict(optimizer="adamw")),
        ],
    )
    def test_what_the_experiment_lacks(self, name, flags):
        with pytest.raises(
            UserError, match=f"--fault: {name} needs {FAULTS[name].needs}; give it that"
        ):
            planted.check(name, Experiment(**flags))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Jobs of two precisions, with and without faults, some of which fail; and one
    process of its own."""
    folder = tmp_path_factory.mktemp("planted")
    jobs = [
        ("first", "", FP32),
        ("faulty", "masters_not_rounded", "--precision=fp16"),
        ("bad_flag", "", "--precision=fp99"),
        ("too_late", "loss_summed", FP32, STEPS),
        (
            "diverging",
            "",
            FP32,
            0,
            "--dataset=linear",
            "--model=linear",
            "--hidden_sizes=",
            "--dropout_rates=",
            "--loss=mse",
            "--optimizer=sgd",
            "--learning_rate=1e30",
        ),
        ("summed", "loss_summed", FP32),
        ("half", "", "--precision=fp16"),
        ("again", "", FP32),
    ]
    (folder / "jobs.json").write_text(
        json.dumps(
            [
                {
                    "fault": fault,
                    "first_step": first[0] if first else 1,
                    "arguments": [
                        *FLAGS,
                        precision,
                        *first[1:],
                        f"--workdir={folder / name}",
                    ],
                }
                for name, fault, precision, *first in jobs
            ]
        )
    )
    commands = (
        ["torch_ref.planted", f"--jobs={folder / 'jobs.json'}"],
        [
            "torch_ref.train",
            *FLAGS,
            "--precision=fp16",
            f"--workdir={folder / 'alone'}",
        ],
    )
    for (module, *arguments), log in zip(commands, ("jobs.log", "alone.log")):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True
        )
        (folder / log).write_text(done.stderr)
        (folder / f"{log}.code").write_text(str(done.returncode))
    return folder


class TestJobs:
    def test_exit_codes(self, folder):
        assert json.loads((folder / "jobs.done.json").read_text()) == [
            0,
            0,
            2,
            2,
            2,
            0,
            0,
            0,
        ]
        assert (folder / "jobs.log.code").read_text() == "2"
        assert (folder / "alone.log.code").read_text() == "0"

    def test_what_failed_is_said_with_its_number(self, folder):
        errors = [
            line
            for line in (folder / "jobs.log").read_text().splitlines()
            if line.startswith("error")
        ]
        assert [line.split(": ")[1] for line in errors] == ["job 2", "job 3", "job 4"]
        assert "--precision" in errors[0]
        assert "--first_step: the run ends before step 4, after 4 steps" in errors[1]
        assert "not finite" in errors[2]

    @pytest.mark.parametrize(("name", "other"), [("half", "alone"), ("again", "first")])
    def test_to_the_bit_what_a_process_of_its_own_trains(self, folder, name, other):
        traces = [
            [
                (folder / run / "trace" / f"step_{step:06d}.safetensors").read_bytes()
                for step in range(STEPS)
            ]
            for run in (name, other)
        ]
        assert traces[0] == traces[1]
        summaries = [
            json.loads((folder / run / "summary.json").read_text())
            for run in (name, other)
        ]
        ours, theirs = (
            {key: value for key, value in summary.items() if "second" not in key}
            for summary in summaries
        )
        assert ours == theirs

    def test_a_fault_is_planted(self, folder):
        files = [
            (folder / run / "trace" / "step_000001.safetensors").read_bytes()
            for run in ("summed", "again")
        ]
        assert files[0] != files[1]

"""Bad input and divergence under DeepSpeed: one clear line, exit code 2, what was
written stays."""

import os
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxnn.experiment.files import artifacts
from jaxnn.experiment.ports import free_port
from tests.conftest import NATIVE_FP16

DIVERGE = (
    "--optimizer=sgd",
    "--learning_rate=1.5",
    "--num_samples=64",
    "--epochs=200",
    "--noplots",
)
OVERFLOW = (*DIVERGE, "--precision=fp16", "--initial_scale_power=2", "--hysteresis=1")

TRAIN = (
    "--optimizer=sgd",
    "--learning_rate=0.1",
    "--num_samples=128",
    "--batch_size=16",
    "--epochs=4",
    "--precision=fp32",
    "--noplots",
)


def error_of(done) -> str:
    """The error line of a run that ended with exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


class TestBadInput:
    @pytest.mark.parametrize(
        ("flag", "message"),
        [
            (
                "--precision=fp64",
                "error: --precision: DeepSpeed trains fp32, bf16, fp16, not fp64",
            ),
            ("--dataset=nope", "error: --dataset: unknown value 'nope'"),
        ],
    )
    def test_names_the_flag(self, run, tmp_path, flag, message):
        assert error_of(
            run("torch_ref.train", flag, f"--workdir={tmp_path / 'run'}")
        ).startswith(message)
        assert not (tmp_path / "run").exists()

    @pytest.mark.skipif(NATIVE_FP16, reason="this CPU has FP16 instructions")
    def test_native_fp16_where_there_is_none(self, run, tmp_path):
        done = run(
            "torch_ref.train", "--fp16_kernels=native", f"--workdir={tmp_path / 'run'}"
        )
        assert error_of(done).startswith(
            "error: --precision: this CPU has no FP16 instructions"
        )
        assert not (tmp_path / "run").exists()


class TestDivergence:
    """Both stacks stop at the same step."""

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ((*DIVERGE, "--precision=fp32"), r"error: step (\d+): loss is not finite"),
            (
                OVERFLOW,
                r"error: step (\d+): .* overflows at the smallest loss scale \(1\)",
            ),
        ],
    )
    def test_stops_at_the_step(self, run, tmp_path, flags, message):
        params = tmp_path / "start" / "params.safetensors"
        assert (
            run(
                "jaxnn.train",
                "--max_steps=1",
                "--noplots",
                "--initializer=zeros",
                "--learning_rate=1e-30",
                f"--workdir={params.parent}",
            ).returncode
            == 0
        )
        steps = []
        for module in ("jaxnn.train", "torch_ref.train"):
            done = run(
                module,
                *flags,
                f"--init_params={params}",
                f"--workdir={tmp_path / module}",
            )
            steps.append(int(re.match(message, error_of(done)).group(1)))
            assert "nan" not in (tmp_path / module / "metrics.csv").read_text()
            assert not (tmp_path / module / "summary.json").exists()
        assert steps[0] == steps[1] > 2


class TestLauncher:
    """`deepspeed --num_accelerators=2`: two ranks train what one does, and an error
    reaches the user."""

    def test_two_ranks_train_what_one_does(self, run, tmp_path):
        """ZeRO 3 of two ranks against stage 0 of one, in parts: FP32 sums in another
        order, over 32 steps.

        Each step adds a few roundings of weights near 1, which gradient descent on a
        bowl does not amplify.
        """
        one, two = tmp_path / "one", tmp_path / "two"
        done = run("torch_ref.train", *TRAIN, "--zero_stage=0", f"--workdir={one}")
        assert done.returncode == 0, done.stderr
        done = launch(
            *TRAIN, "--zero_stage=3", "--accumulation_steps=2", f"--workdir={two}"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        params = [
            artifacts.read_arrays(folder / artifacts.PARAMS, "")
            for folder in (one, two)
        ]
        for name, array in params[0].items():
            np.testing.assert_allclose(
                params[1][name], array, rtol=0, atol=32 * 8 * 2**-24
            )
        losses = [artifacts.read_metrics(folder)["test_loss"] for folder in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-4)

    def test_a_taken_port_is_named(self, tmp_path):
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = launch(*TRAIN, f"--workdir={tmp_path / 'run'}", port=port)
        assert done.returncode == 2
        assert (
            f"error: --master_port: 127.0.0.1:{port} is taken by another program"
            in done.stdout + done.stderr
        )

    def test_a_rank_that_dies_ends_the_run(self, tmp_path):
        """The data file of one rank alone is missing: its line and its exit code are
        the run's."""
        script = tmp_path / "dying.py"
        script.write_text(
            "import os, runpy, sys\n"
            "if os.environ['RANK'] == '1':\n    sys.argv.append('--dataset=csv')\n"
            "    sys.argv.append('--data_path=/nowhere.csv')\n"
            "runpy.run_module('torch_ref.train', run_name='__main__')\n"
        )
        done = launch(*TRAIN, f"--workdir={tmp_path / 'run'}", module=(str(script),))
        assert done.returncode == 2
        assert "error: --data_path: " in done.stdout + done.stderr


class TestEarlyStopping:
    def test_keeps_the_best_epoch(self, run, tmp_path):
        """To the bit what a run of as many epochs ends with; later epochs are worse."""
        flags = (
            "--dataset=iris",
            "--model=mlp",
            "--hidden_sizes=16",
            "--loss=cross_entropy",
            "--learning_rate=0.5",
            "--optimizer=sgd",
            "--batch_size=16",
            "--validation_fraction=0.2",
            "--precision=fp32",
            "--noplots",
        )
        stopped = run(
            "torch_ref.train",
            *flags,
            "--epochs=60",
            "--patience=2",
            f"--workdir={tmp_path / 'stopped'}",
        )
        assert stopped.returncode == 0, stopped.stderr
        summary = artifacts.read_summary(tmp_path / "stopped")
        best, losses = (
            summary["best_epoch"],
            artifacts.read_metrics(tmp_path / "stopped")["validation_loss"],
        )
        assert (summary["stopped_early"], len(losses)) == (True, best + 2)
        assert losses[best - 1] == losses.min()
        again = run(
            "torch_ref.train",
            *flags,
            f"--epochs={best}",
            f"--workdir={tmp_path / 'again'}",
        )
        assert again.returncode == 0, again.stderr
        kept, wanted = (
            artifacts.read_arrays(tmp_path / name / artifacts.PARAMS, "")
            for name in ("stopped", "again")
        )
        for name, array in wanted.items():
            np.testing.assert_array_equal(kept[name], array)


class TestWithoutCompiler:
    def test_torchs_adam_takes_over_with_one_line(self, tmp_path, monkeypatch):
        """To the bit what --nofused_adam trains."""
        tools = tmp_path / "tools"
        tools.mkdir()
        (tools / "which").symlink_to(shutil.which("which"))
        runs = {}
        for name, path, flag in (
            ("without", tools, ()),
            ("with", os.environ["PATH"], ("--nofused_adam",)),
        ):
            environment = {
                **os.environ,
                "PATH": str(path),
                "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
            }
            command = [
                sys.executable,
                "-m",
                "torch_ref.train",
                *TRAIN,
                "--optimizer=adam",
                *flag,
            ]
            runs[name] = subprocess.run(
                [*command, f"--workdir={tmp_path / name}"],
                env=environment,
                capture_output=True,
                text=True,
            )
            assert runs[name].returncode == 0, runs[name].stderr
        notes = [
            line
            for line in runs["without"].stderr.splitlines()
            if "FusedAdam cannot be compiled here" in line
        ]
        assert len(notes) == 1
        assert "betas are double" in notes[0]
        kept, wanted = (
            artifacts.read_arrays(tmp_path / name / artifacts.PARAMS, "")
            for name in runs
        )
        for name, array in wanted.items():
            np.testing.assert_array_equal(kept[name], array)


def launch(
    *arguments: str,
    port: int = 0,
    module: tuple[str, ...] = ("--module", "torch_ref.train"),
):
    """The deepspeed launcher with two ranks, output captured."""
    command = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_accelerators=2",
        f"--master_port={port or free_port()}",
    ]
    return subprocess.run(
        [*command, *module, *map(str, arguments)], capture_output=True, text=True
    )

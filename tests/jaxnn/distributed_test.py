"""Two processes of two virtual devices each, for real, over the loopback interface."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from jaxnn import checkpoint
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.ports import free_port

GO_ON = ("--flagfile=launch/experiments/breast_cancer.flags", "--noplots")
FLAGS = (*GO_ON, "--overwrite")
STARTED: list[subprocess.Popen] = []
DEADLINE = 60
"""Seconds in which the others must have ended after one was killed: without `Peers`
JAX would notice after 300."""


@pytest.fixture(autouse=True)
def _nobody_is_left():
    """Whatever a test has started ends with it."""
    yield
    for process in STARTED:
        process.kill()
        process.communicate()
    STARTED.clear()


def start(
    *flags: str, devices: int = 2, base: Sequence[str] = FLAGS, **of_popen
) -> subprocess.Popen:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.getcwd(),
    }
    STARTED.append(
        subprocess.Popen(
            [sys.executable, "-m", "jaxnn.train", *base, *flags],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **of_popen,
        )
    )
    return STARTED[-1]


def start_two(
    workdir: pathlib.Path,
    *flags: str,
    of_second: tuple[str, ...] = (),
    folders: Sequence[pathlib.Path | None] = (None, None),
    **more,
) -> list[subprocess.Popen]:
    together = (
        f"--coordinator_address=localhost:{free_port()}",
        "--num_processes=2",
        f"--workdir={workdir}",
        *flags,
    )
    return [
        start(*together, f"--process_id={number}", *own, cwd=folder, **more)
        for number, (own, folder) in enumerate(zip(((), of_second), folders))
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs)
    ]


def distance(one: pathlib.Path, other: pathlib.Path) -> float:
    """Between the parameters of two runs."""
    left, right = (
        artifacts.read_arrays(folder / artifacts.PARAMS, "") for folder in (one, other)
    )
    return float(
        np.sqrt(
            sum(
                np.sum(np.square(left[name] - right[name], dtype=np.float64))
                for name in left
            )
        )
    )


class TestTwoProcesses:
    def test_train_what_one_does(self, tmp_path):
        """Against the rounding of sums in another order, which one device against four
        shows."""
        flags = ("--epochs=3", "--batch_size=36", "--normalization=batch")
        two = start_two(tmp_path / "two", *flags)
        alone = [
            start(
                *flags,
                f"--num_devices={n}",
                f"--workdir={tmp_path / str(n)}",
                devices=n,
            )
            for n in (1, 4)
        ]
        (status, shown, complaint), (status_of_second, quiet, _), *others = ended(
            [*two, *alone]
        )
        assert (status, status_of_second) == (0, 0), complaint
        assert [other[0] for other in others] == [0, 0]
        assert (
            0
            < distance(tmp_path / "two", tmp_path / "4")
            <= 8 * distance(tmp_path / "1", tmp_path / "4")
        )
        assert artifacts.read_summary(tmp_path / "two")["num_devices"] == 4
        assert "test accuracy" in shown
        assert "accuracy" not in quiet

    def test_stream_data_that_are_too_large_and_go_on_when_stopped(self, tmp_path):
        """To the same bits as if both held all of the data and were never stopped."""
        inputs = np.random.default_rng(0).standard_normal((20_000, 30), np.float32)
        np.savez(tmp_path / "data.npz", x=inputs, y=(inputs[:, 0] > 0).astype(np.int32))
        flags = (
            "--dataset=npz",
            f"--data_path={tmp_path / 'data.npz'}",
            "--epochs=30",
            "--batch_size=1000",
        )
        whole = start_two(tmp_path / "whole", *flags)
        stopped = start_two(tmp_path / "streamed", *flags, "--device_cache_mb=1")
        wait_for_an_epoch(tmp_path / "streamed")
        stopped[1].terminate()
        assert [status for status, *_ in ended([*whole, *stopped])] == [0] * 4
        assert 0 < len(artifacts.read_metrics(tmp_path / "streamed")["epoch"]) < 30
        resumed = start_two(
            tmp_path / "streamed", *flags, "--device_cache_mb=1", "--resume", base=GO_ON
        )
        (status, said, complaint), (status_of_second, _, _) = ended(resumed)
        assert (status, status_of_second) == (0, 0), complaint
        assert "going on after epoch" in said
        for name in (artifacts.METRICS, artifacts.PARAMS):
            assert (tmp_path / "streamed" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()

    def test_other_flags_are_named_by_both(self, tmp_path):
        for status, _, complaint in ended(
            start_two(tmp_path, of_second=("--learning_rate=0.5",))
        ):
            assert status == 2
            assert (
                "error: --learning_rate: process 1 was given another value than "
                "process 0; start all" in complaint
            )
            assert "Traceback" not in complaint
        assert not (tmp_path / artifacts.FLAGS).exists()

    def test_other_data_are_named_by_both(self, tmp_path):
        """Of the same name and sizes, in different folders."""
        folders = [tmp_path / name for name in "ab"]
        for number, folder in enumerate(folders):
            folder.mkdir()
            rows = [
                f"{value},{value % 2 + (number if value == 7 else 0)}"
                for value in range(40)
            ]
            (folder / "data.csv").write_text("x,y\n" + "\n".join(rows))
        processes = start_two(
            tmp_path / "run",
            "--dataset=csv",
            "--data_path=data.csv",
            "--task=regression",
            base=["--batch_size=4", "--noplots"],
            folders=folders,
        )
        for status, _, complaint in ended(processes):
            assert status == 2
            assert re.search(
                r"error: --dataset: process 1 holds another (train|test) split than "
                r"process 0; give all",
                complaint,
            )
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("victim", [0, 1])
    def test_one_that_is_killed_takes_the_other_with_it(self, tmp_path, victim):
        processes = start_two(tmp_path, "--epochs=100000")
        wait_for_an_epoch(tmp_path)
        processes[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        status, _, complaint = ended([processes[1 - victim]])[0]
        assert time.monotonic() - killed < DEADLINE
        assert status == 1
        assert f"error: process {victim} has ended before the run did" in complaint

    def test_sigterm_to_one_stops_both_and_one_goes_on(self, tmp_path):
        """With a checkpoint of the same epoch, which a single process with another
        number of devices takes up."""
        flags = ("--epochs=300", "--normalization=batch", "--batch_size=36")
        processes = start_two(tmp_path, *flags)
        wait_for_an_epoch(tmp_path)
        processes[1].terminate()
        (status, said, _), (status_of_second, _, _) = ended(processes)
        assert (status, status_of_second) == (0, 0)
        assert "stopped as asked; resume with python -m jaxnn.train" in said
        rows = artifacts.read_metrics(tmp_path)
        done = len(rows["epoch"])
        assert done < 300
        assert checkpoint.steps(tmp_path)[-1] == rows["step"][-1]
        status, said, complaint = ended(
            [start(*flags, f"--workdir={tmp_path}", "--resume", base=GO_ON, devices=1)]
        )[0]
        assert status == 0, complaint
        assert f"going on after epoch {done} of 300" in said
        assert len(artifacts.read_metrics(tmp_path)["epoch"]) == 300


class TestScripts:
    @pytest.mark.parametrize(
        ("script", "count", "devices"),
        [("multi_device.sh", 8, 8), ("multi_host.sh", 2, 2)],
    )
    def test_train_for_real(self, tmp_path, script, count, devices):
        environment = {
            name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
        }
        done = subprocess.run(
            [
                "bash",
                f"launch/{script}",
                str(count),
                "--flagfile=launch/experiments/digits.flags",
                "--epochs=2",
                "--noplots",
                f"--workdir={tmp_path}",
            ],
            text=True,
            capture_output=True,
            env=environment | {"JAXNN_PYTHON": sys.executable},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test accuracy") == 1
        summary = artifacts.read_summary(tmp_path)
        assert summary["num_devices"] == devices
        assert summary["final"]["accuracy"] > 0.9


def wait_for_an_epoch(workdir: pathlib.Path) -> None:
    ended_by = time.monotonic() + 100
    while not (workdir / artifacts.METRICS).exists():
        assert time.monotonic() < ended_by, "no epoch was trained"
        time.sleep(0.05)


class TestWithoutTheOthers:
    def test_nobody_at_the_address(self):
        address = f"localhost:{free_port()}"
        status, _, complaint = ended(
            [
                start(
                    f"--coordinator_address={address}",
                    "--num_processes=2",
                    "--process_id=1",
                    "--initialization_timeout=1",
                )
            ]
        )[0]
        assert status == 2
        assert complaint == (
            f"error: --coordinator_address: process 1 found nobody at {address} within "
            "1 s; start process 0 there and open the port, or raise "
            "--initialization_timeout\n"
        )

    def test_nobody_comes(self):
        address = f"localhost:{free_port()}"
        status, _, complaint = ended(
            [
                start(
                    f"--coordinator_address={address}",
                    "--num_processes=2",
                    "--initialization_timeout=1",
                )
            ]
        )[0]
        assert status == 2
        assert complaint == (
            f"error: --num_processes: process 0 waited 1 s at {address} and not all 2 "
            "processes came; start the others, or raise --initialization_timeout\n"
        )

    def test_the_port_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            status, _, complaint = ended(
                [start(f"--coordinator_address=localhost:{port}", "--num_processes=2")]
            )[0]
        assert status == 2
        assert complaint == (
            f"error: --coordinator_address: port {port} of this host is taken by "
            "another program; choose a free one (--port of launch/multi_host.sh)\n"
        )

    def test_no_cluster(self):
        status, _, complaint = ended([start("--distributed")])[0]
        assert status == 2
        assert complaint.startswith(
            "error: --distributed: the environment describes no cluster (SLURM, Open "
            "MPI, TPU"
        )
        assert complaint.count("\n") == 1

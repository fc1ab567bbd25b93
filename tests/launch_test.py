"""Tests of the scripts under launch/: what they would run, how they refuse, and that no
process outlives them."""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

LAUNCH = pathlib.Path("launch")
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
HELPFUL = [
    path
    for path in SCRIPTS
    if path.stem not in ("setup", "train", "test", "experiments", "shell")
]
PYTHON = ".venv/bin/python"
VIRTUAL = "env XLA_FLAGS=--xla_force_host_platform_device_count="
MEETING = "--coordinator_address={} --num_processes=2 --process_id={}"
BASH = "#!/usr/bin/env bash\n"
SECONDS = 20
"""To wait for processes that start or end within two; so long only where the machine is
busy."""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in filter(
        re.compile("XLA_FLAGS|JAXNN_(PYTHON|GRACE)|SLURM").match, [*os.environ]
    ):
        monkeypatch.delenv(name)


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """launch/NAME with arguments, output captured."""
    return subprocess.run(
        ["bash", LAUNCH / name, *map(str, arguments)], capture_output=True, text=True
    )


def commands(name: str, *arguments: object) -> list[str]:
    """The lines of a dry run, which must end well and say nothing else."""
    done = script(name, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class TestEveryScript:
    def test_shellcheck(self):
        # The extra `test` brings it, beside this Python and perhaps not on PATH.
        shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
        done = subprocess.run(
            [shellcheck, "--external-sources", *SCRIPTS], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("path", HELPFUL, ids=lambda path: path.name)
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_is_the_head(self, path, flag):
        head = re.match(r"#!/usr/bin/env bash\n((?:#(?: .*)?\n)+)", path.read_text())[1]
        assert "\n".join(commands(path.name, flag)) + "\n" == re.sub(
            r"^# ?", "", head, flags=re.MULTILINE
        )
        assert f"launch/{path.name}" in head

    @pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
    def test_is_short_and_strict(self, path):
        lines = path.read_text().splitlines()
        assert len(lines) <= 120
        assert "set -euo pipefail" in lines


class TestMultiDevice:
    def test_command(self):
        given = ("--flagfile=a.flags", "--hidden_sizes=8,4", "--name=a b")
        assert commands("multi_device.sh", "--dry_run", 8, *given) == [
            f"{VIRTUAL}8 {PYTHON} -m jaxnn.train --flagfile=a.flags --hidden_sizes=8,4 "
            "'--name=a b' --num_devices=8"
        ]

    def test_keeps_the_xla_flags_that_are_set(self, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=d")
        (line,) = commands("multi_device.sh", "--dry_run", 2)
        assert (
            shlex.split(line)[1]
            == "XLA_FLAGS=--xla_dump_to=d --xla_force_host_platform_device_count=2"
        )

    def test_runs_it(self, monkeypatch):
        monkeypatch.setenv("JAXNN_PYTHON", "echo")
        assert commands("multi_device.sh", 2, "--epochs=1") == [
            "-m jaxnn.train --epochs=1 --num_devices=2"
        ]


class TestBenchmark:
    def test_command(self):
        assert commands("benchmark.sh", "--dry_run", "--rounds=5", "--workdir=a b") == [
            f"{PYTHON} -m parity.speed.benchmark --rounds=5 '--workdir=a b'"
        ]

    def test_runs_it(self, monkeypatch):
        monkeypatch.setenv("JAXNN_PYTHON", "echo")
        assert commands("benchmark.sh", "--rounds=5") == [
            "-m parity.speed.benchmark --rounds=5"
        ]


class TestLabs:
    def test_command(self):
        assert commands("labs.sh", "--dry_run", "rates", "--workdir=a b") == [
            f"{PYTHON} -m parity.labs rates '--workdir=a b'"
        ]

    def test_unknown_name_is_one_line(self, monkeypatch):
        monkeypatch.setenv("JAXNN_PYTHON", sys.executable)
        done = script("labs.sh", "rate")
        assert done.returncode == 2
        assert re.fullmatch("error: rate: no such lab; known: .*\n", done.stderr)


class TestMultiHost:
    def test_commands(self):
        lines = commands(
            "multi_host.sh",
            "--dry_run",
            2,
            "--devices_per_process=3",
            "--port=4000",
            "--name=a b",
        )
        assert lines == [
            f"{VIRTUAL}3 {PYTHON} -m jaxnn.train '--name=a b' "
            f"{MEETING.format('127.0.0.1:4000', k)}"
            for k in range(2)
        ]

    def test_all_meet_at_one_port(self):
        first, second = commands("multi_host.sh", "--dry_run", 2, "--epochs=1")
        port = re.search(r"127\.0\.0\.1:(\d{5}) ", first)[1]
        assert [first, second] == [
            f"{PYTHON} -m jaxnn.train --epochs=1 "
            f"{MEETING.format(f'127.0.0.1:{port}', k)}"
            for k in range(2)
        ]

    def test_hosts(self, tmp_path):
        (tmp_path / "hosts").write_text(
            "# two\nme@worker-0 slots=4  # big\n\nworker-1\n"
        )
        lines = commands(
            "multi_host.sh",
            "--dry_run",
            f"--hostfile={tmp_path / 'hosts'}",
            "--name=a b",
        )
        for k, (command, host) in enumerate(
            zip(lines, ("me@worker-0", "worker-1"), strict=True)
        ):
            *ssh, remote = shlex.split(command)
            assert ssh == [
                "ssh",
                "-o",
                "BatchMode=yes",
                "-o",
                "ServerAliveInterval=15",
                host,
            ]
            program = (
                f"{PYTHON} -m jaxnn.train '--name=a b' "
                f"{MEETING.format('worker-0:8476', k)}"
            )
            where = (
                f"cd {shlex.quote(os.getcwd())} && exec python3 launch/supervise.py "
                "--until_eof"
            )
            *where_to, line = shlex.split(remote)
            assert (where_to, line) == (shlex.split(where), program)


class TestClusters:
    def test_slurm_jaxnn(self):
        assert commands(
            "slurm_jaxnn.sbatch", "--dry_run", "--epochs=1", "--name=a b"
        ) == [
            f"srun --kill-on-bad-exit=1 {PYTHON} -m jaxnn.train --epochs=1 '--name=a "
            "b' --distributed"
        ]

    def test_slurm_deepspeed(self, monkeypatch):
        monkeypatch.setenv("SLURMD_NODENAME", "node3")
        monkeypatch.setenv("SLURM_JOB_ID", "15007")
        (line,) = commands("slurm_deepspeed.sbatch", "--dry_run", "--epochs=1")
        rank = (
            "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS "
            'exec "$0" -m torch_ref.train "$@"'
        )
        assert shlex.split(line) == [
            "env",
            "MASTER_ADDR=node3",
            "MASTER_PORT=15007",
            "srun",
            "--kill-on-bad-exit=1",
            "bash",
            "-c",
            rank,
            PYTHON,
            "--epochs=1",
        ]

    def test_ranks_of_slurm(self, monkeypatch, tmp_path):
        write_program(
            tmp_path / "srun",
            BASH
            + 'shift; for k in 0 1; do SLURM_PROCID=$k SLURM_LOCALID=$k "$@"; done',
        )
        write_program(
            tmp_path / "python",
            BASH + 'echo "$*: $RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT"',
        )
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        for name, value in {
            "JAXNN_PYTHON": tmp_path / "python",
            "SLURMD_NODENAME": "a",
            "SLURM_JOB_ID": 1,
            "SLURM_NTASKS": 2,
        }.items():
            monkeypatch.setenv(name, str(value))
        assert commands("slurm_deepspeed.sbatch", "--name=a b") == [
            f"-m torch_ref.train --name=a b: {k} {k} 2 a 15001" for k in range(2)
        ]

    def test_tpu_pod(self, monkeypatch, tmp_path):
        remote = (
            f"cd 'my jaxnn' && bash launch/setup.sh && {PYTHON} -m pip install --quiet "
            f"-c launch/constraints.txt 'jax[tpu]' && exec {PYTHON} -m jaxnn.train "
            "'--name=a b' --distributed"
        )
        arguments = [
            "compute",
            "tpus",
            "tpu-vm",
            "ssh",
            "pod-1",
            "--zone=us-central2-b",
            "--worker=all",
            f"--command={remote}",
        ]
        given = ("pod-1", "us-central2-b", "--folder=my jaxnn", "--name=a b")
        (line,) = commands("tpu_pod.sh", "--dry_run", *given)
        assert shlex.split(line) == ["gcloud", *arguments]
        write_program(tmp_path / "gcloud", BASH + 'printf "%s\\n" "$@"')
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert commands("tpu_pod.sh", *given) == arguments

    def test_deepspeed(self, tmp_path):
        hosts = tmp_path / "hosts"
        hosts.write_text("worker-0 slots=4\n")
        assert commands(
            "deepspeed.sh",
            "--dry_run",
            f"--hostfile={hosts}",
            "--num_gpus=2",
            "--epochs=1",
        ) == [
            f"{PYTHON} -m deepspeed.launcher.runner --hostfile={hosts} "
            "--num_accelerators=2 --module torch_ref.train --epochs=1"
        ]
        assert commands("deepspeed.sh", "--dry_run") == [
            f"{PYTHON} -m deepspeed.launcher.runner --module torch_ref.train"
        ]


BAD = {
    "no devices": (
        "multi_device",
        ["--epochs=1"],
        "needs the number of devices first, e.g. 8; got '--epochs=1'",
    ),
    "zero devices": (
        "multi_device",
        ["0"],
        "needs the number of devices first, e.g. 8; got '0'",
    ),
    "no processes": (
        "multi_host",
        ["--epochs=1"],
        "needs the number of processes first, or --hostfile=FILE that names "
        "hosts; got '--epochs=1'",
    ),
    "zero processes": (
        "multi_host",
        ["0"],
        "number of processes: must be a number above 0, got '0'",
    ),
    "half a process": (
        "multi_host",
        ["1.5"],
        "number of processes: must be a number above 0, got '1.5'",
    ),
    "devices that are no number": (
        "multi_host",
        ["2", "--devices_per_process=x"],
        "--devices_per_process: must be a number above 0, got 'x'",
    ),
    "a port too large": (
        "multi_host",
        ["2", "--port=65536"],
        "--port: must be less than 65536, got '65536'",
    ),
    "no hostfile": (
        "multi_host",
        ["--hostfile=/nowhere"],
        "--hostfile: cannot read '/nowhere'",
    ),
    "hostfile that is a folder": (
        "multi_host",
        ["--hostfile=/tmp"],
        "--hostfile: cannot read '/tmp'",
    ),
    "outside SLURM": (
        "slurm_jaxnn",
        ["--epochs=1"],
        "is for SLURM: sbatch launch/slurm_jaxnn.sbatch [FLAG...]",
    ),
    "outside SLURM too": (
        "slurm_deepspeed",
        [],
        "is for SLURM: sbatch launch/slurm_deepspeed.sbatch [FLAG...]",
    ),
    "no zone": (
        "tpu_pod",
        ["pod"],
        "needs the name of the TPU and its zone first; got 'pod'",
    ),
    "flag as a zone": (
        "tpu_pod",
        ["pod", "--zone=a"],
        "needs the name of the TPU and its zone first; got 'pod --zone=a'",
    ),
    "ranks that are no number": (
        "deepspeed",
        ["--num_gpus=all"],
        "--num_gpus: must be a number above 0, got 'all'",
    ),
    "ranks apart": (
        "deepspeed",
        ["--num_gpus", "2"],
        "--num_gpus: write it --num_gpus=VALUE",
    ),
    "no hostfile of deepspeed": (
        "deepspeed",
        ["--hostfile=/nowhere"],
        "--hostfile: cannot read '/nowhere'",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("case", BAD)
    def test_one_line_and_exit_code_2(self, case):
        name, arguments, problem = BAD[case]
        done = script(f"{name}.sbatch" if "slurm" in name else f"{name}.sh", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (
            2,
            "",
            f"{name}: {problem}\n",
        )

    def test_a_port_that_is_taken(self, monkeypatch):
        monkeypatch.setenv("JAXNN_PYTHON", "false")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            done = script("multi_host.sh", 2, f"--port={port}")
        assert (done.returncode, done.stdout, done.stderr) == (
            2,
            "",
            f"multi_host: --port: {port} is taken by another program; choose a free "
            "one, or none\n",
        )

    @pytest.mark.parametrize(
        ("text", "bad"),
        [
            ("a slots=4\nb slots=x\n", "b slots=x"),
            ("a slots=4 more\n", "a slots=4 more"),
            ("a\nb\na\n", "a"),
            ("-oProxyCommand=x\n", "-oProxyCommand=x"),
            ("$(id)\n", "$(id)"),
        ],
    )
    def test_a_line_of_the_hostfile(self, tmp_path, text, bad):
        (tmp_path / "hosts").write_text(text)
        done = script("multi_host.sh", f"--hostfile={tmp_path / 'hosts'}")
        assert done.returncode == 2
        assert done.stderr == (
            f"multi_host: --hostfile: {tmp_path / 'hosts'}: '{bad}' is not 'name "
            "slots=4' with a name of its own\n"
        )

    def test_a_hostfile_of_no_host(self, tmp_path):
        (tmp_path / "hosts").write_text("# none\n")
        done = script("multi_host.sh", f"--hostfile={tmp_path / 'hosts'}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(
            "multi_host: needs the number of processes first, or --hostfile=FILE"
        )

    def test_sbatch_from_elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SLURM_SUBMIT_DIR", str(tmp_path))
        done = script("slurm_jaxnn.sbatch")
        assert (done.returncode, done.stderr) == (
            2,
            f"slurm_jaxnn: {tmp_path} is not the repository; submit from there\n",
        )


def write_program(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


STUB = f"""#!{sys.executable} -IS
import os, signal, subprocess, sys, time

folder, number = os.environ["FOLDER"], sys.argv[-1].removeprefix("--process_id=")

def note(name, pid):
    with open(f"{{folder}}/{{name}}_{{number}}.new", "w") as file:
        file.write(str(pid))
    os.rename(file.name, file.name.removesuffix(".new"))

def leave(signum, frame):
    print("process", number, "got", signal.Signals(signum).name, flush=True)
    if "STUBBORN" not in os.environ:
        os._exit(int(os.environ.get("STATUS", "0")))

for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, leave)
note("child", subprocess.Popen(["sleep", "1000"]).pid)
note("self", os.getpid())
while number == "0" or not os.path.exists(f"{{folder}}/die"):
    time.sleep(0.05)
sys.exit(7)
"""
"""A program that waits. TERM and INT end it unless it is stubborn, process 1 fails when
told to; its child stays."""

SSH = f"""#!{sys.executable} -IS
import signal, subprocess, sys

def restore():  # the other host knows nothing of what is ignored here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)

remote = ["bash", "-c", sys.argv[-1]]
sys.exit(subprocess.Popen(remote, start_new_session=True, preexec_fn=restore).wait())
"""


class Started:
    """launch/multi_host.sh with two processes of `STUB`, on this machine or through a
    stub of ssh."""

    def __init__(
        self, folder: pathlib.Path, over_ssh: bool, environment: dict[str, str]
    ):
        self.folder, self.pids = folder, []
        write_program(folder / "python", STUB)
        write_program(folder / "ssh", SSH)
        (folder / "hosts").write_text("here slots=2\nthere slots=2\n")
        self.process = subprocess.Popen(
            [
                "bash",
                LAUNCH / "multi_host.sh",
                f"--hostfile={folder / 'hosts'}" if over_ssh else "2",
            ],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ
            | {
                "JAXNN_PYTHON": str(folder / "python"),
                "FOLDER": str(folder),
                "PATH": f"{folder}:{os.environ['PATH']}",
            }
            | environment,
        )
        files = [folder / f"{who}_{k}" for who in ("child", "self") for k in range(2)]
        assert soon(lambda: all(path.exists() for path in files))
        self.pids = [int(path.read_text()) for path in files]

    def end(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) when all is over, and nothing is left."""
        out, err = self.process.communicate(timeout=SECONDS)
        assert soon(lambda: not any(map(alive, self.pids)))
        return self.process.returncode, out, err

    def clean_up(self) -> None:
        for pid in [self.process.pid, *filter(alive, self.pids)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def soon(condition) -> bool:
    """Whether the condition comes true within `SECONDS`."""
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that nobody has waited for."""
    try:
        return (
            pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            != "Z"
        )
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("over_ssh", [False, True], ids=["local", "ssh"])
class TestNoOrphans:
    @pytest.fixture
    def start(self, tmp_path, over_ssh):
        started = []

        def start(**environment: str) -> Started:
            started.append(Started(tmp_path, over_ssh, environment))
            return started[0]

        yield start
        started[0].clean_up()

    def test_term_reaches_all_and_may_end_well(self, start):
        run = start()
        run.process.send_signal(signal.SIGTERM)
        code, out, err = run.end()
        assert (code, sorted(out.splitlines()), err) == (
            0,
            ["process 0 got SIGTERM", "process 1 got SIGTERM"],
            "",
        )

    def test_int_reaches_all(self, start, over_ssh):
        run = start(STATUS="130")
        run.process.send_signal(signal.SIGINT)
        code, out, err = run.end()
        name = (
            "SIGTERM" if over_ssh else "SIGINT"
        )  # what the end of stdin means at the other side
        assert sorted(out.splitlines()) == [
            f"process 0 got {name}",
            f"process 1 got {name}",
        ]
        assert (code, err) == (130, "")

    def test_one_that_fails_stops_the_others(self, start):
        run = start(STATUS="9")
        (run.folder / "die").touch()
        code, out, err = run.end()
        assert (code, out) == (7, "process 0 got SIGTERM\n"), "the first failure's code"
        assert (
            err == "supervise: process 1 ended with exit code 7; stopping the others\n"
        )

    def test_one_that_does_not_stop_is_killed(self, start):
        run = start(STUBBORN="yes", JAXNN_GRACE="1")
        (run.folder / "die").touch()
        assert run.end()[:2] == (7, "process 0 got SIGTERM\n")

    def test_the_script_is_killed(self, start):
        run = start()
        run.process.kill()
        assert run.end()[0] == -signal.SIGKILL

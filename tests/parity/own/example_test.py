"""The example of launch/own: its commands, where DeepSpeed is right and where not."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxnn.experiment.ports import free_port

# The loss scale doubles while it is recorded.
GROWING = ("--loss_scale_window=2",)
EXAMPLE = pathlib.Path("launch/own")
# DeepSpeed's launcher sets these; it would start one process of the same.
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
AS_ITS_LAUNCHER = """
import runpy, sys
from deepspeed.accelerator import get_accelerator
get_accelerator().is_fp16_supported = lambda: True
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | ALONE | {"MASTER_PORT": str(free_port())},
        capture_output=True,
        text=True,
    )


def judged(trace, *flags):
    """Returns exit code and verdict.json of both commands."""
    script = EXAMPLE / "train.py"
    done = run("-c", AS_ITS_LAUNCHER, script, f"--trace={trace}", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    done = run("-m", "parity.own", trace, EXAMPLE / "port.py")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads((trace / "verdict.json").read_text())


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--stage=1", "--precision=fp16", "--accumulation=4"), None),
        (
            ("--stage=0", "--precision=fp16", *GROWING),
            "init_step_counted + loss_not_scaled + growth_step_halved"
            " + bias_correction_late",
        ),
        (("--stage=0", "--precision=bf16"), "bias_correction_late"),
        (
            ("--stage=3", "--precision=fp16", *GROWING),
            "unused_gradient_stale + growth_step_halved",
        ),
    ],
)
def test_what_it_ends_with(tmp_path, flags, names):
    code, verdict = judged(tmp_path / "trace", *flags)
    assert code == (names is not None)
    assert (tmp_path / "trace" / "report.html").exists()
    if names:
        (best,) = verdict["diagnosis"]
        assert best["name"] == names
        assert best["explained"]


@pytest.mark.parametrize("file", ["train.py", "port.py", "net.py"])
def test_no_file_is_longer_than_a_page(file):
    assert len((EXAMPLE / file).read_text().splitlines()) <= 60

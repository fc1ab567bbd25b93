"""Tests of parity/speed/measuring.py, with programs that only write a summary."""

import json
import os
import sys

import pytest

from parity.speed.competitors import Competitor
from parity.speed.measuring import Failed, measure, run

PROGRAM = """
import json, pathlib, sys
flags = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
folder = pathlib.Path(flags["--workdir"])
folder.mkdir(exist_ok=True)
with (folder.parent / "order.txt").open("a") as order:
    order.write(folder.name + "\\n")
summary = {"train_seconds": 2.0, "samples_per_second": 50.0, "steps": 9}
summary["test_loss"] = 0.5
(folder / "summary.json").write_text(json.dumps(summary))
"""
REFUSES = "import sys; print('error: no', file=sys.stderr); sys.exit(2)"
SLEEPS = "import time; time.sleep(600)"
DIES = "raise ValueError('of\\nmany lines')"


def competitor(label: str, code: str = PROGRAM) -> Competitor:
    command = (sys.executable, "-IS", "-c", code)
    return Competitor("best", label, command, dict(os.environ))


def order(root) -> list[str]:
    return (root / "order.txt").read_text().split()


def test_reads_clock_and_summary(tmp_path):
    found = run(competitor("a"), tmp_path, 60)
    assert (found.training, found.throughput, found.steps) == (2.0, 50.0, 9)
    assert found.wall > 0
    assert found.memory > 2**20


@pytest.mark.parametrize(
    ("code", "seconds", "why"),
    [
        (REFUSES, 60, "no"),
        (DIES, 60, "many lines"),
        (SLEEPS, 0.5, r"took more than 0.5 s"),
    ],
)
def test_says_why_a_run_failed(tmp_path, code, seconds, why):
    with pytest.raises(Failed, match=rf"^{why}$"):
        run(competitor("a", code), tmp_path, seconds)


def test_takes_turns_after_a_run_that_does_not_count(tmp_path):
    shown = []
    results = measure([competitor("a"), competitor("b")], tmp_path, 2, 60, shown.append)
    assert order(tmp_path) == ["b", "a", "a", "b", "b", "a"]
    assert [len(result.runs) for result in results] == [2, 2]
    assert shown[0] == "filling caches: b"
    assert shown[-1] == "round 2 of 2: a"


def test_who_fails_is_not_asked_again(tmp_path):
    results = measure(
        [competitor("a"), competitor("b", REFUSES)], tmp_path, 1, 60, lambda _: None
    )
    assert [(len(result.runs), result.failure) for result in results] == [
        (1, ""),
        (0, "no"),
    ]


def test_median(tmp_path):
    (result,) = measure([competitor("a")], tmp_path, 3, 60, lambda _: None)
    assert result.median("training") == 2.0
    assert json.dumps(result.runs[0]._asdict())

"""Tests of parity/speed/goals.py and benchmark.py."""

import pathlib
import types

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.speed import benchmark, goals
from parity.speed.comparison import Machine, as_json
from parity.speed.goals import WORKLOADS
from tests.parity.speed.results import RESULTS, failed

REPORT = as_json(Experiment(precision="fp32"), 3, Machine(2e9, 1e11), RESULTS)
NONE = as_json(
    Experiment(precision="fp32"), 3, Machine(), [failed("jaxnn", "jaxnn", "no")]
)
W1, W6 = WORKLOADS[0], WORKLOADS[5]


class TestGoals:
    def test_training(self):
        goal = goals.training(W6, REPORT)
        assert (goal.ours, goal.theirs) == ("2 s", "2.5 s (compiled, 1 thread)")
        assert (goal.reached, goal.bound, goal.is_met) == (1.25, 1.05, True)
        assert not goals.training(W1, REPORT).is_met

    def test_whole_process(self):
        (seconds,) = goals.cold(W1, REPORT)
        assert (seconds.reached, seconds.bound, seconds.is_met) == (5, 0.8, False)
        (ratio,) = goals.cold(W6, REPORT)
        assert (ratio.reached, ratio.bound, ratio.is_met) == (0.8, 1.3, False)

    def test_memory(self):
        goal = goals.memory(W1, REPORT)
        assert (goal.ours, goal.theirs) == ("300 MiB", "400 MiB")
        assert goal.is_met

    def test_what_failed_is_not_reached(self):
        goal = goals.training(W1, NONE)
        assert (goal.ours, goal.reached, goal.is_met) == ("failed", None, False)

    def test_rows(self):
        lines = list(goals.rows([(W1, REPORT), (W6, REPORT), (W6, NONE)]))
        text = "\n".join(lines)
        assert "| 1.25 | >= 100 | **no** | 10% |" in text
        assert "| 1.25 | >= 1.05 | yes | 10% |" in text
        assert "| >= 1.05 | not measured |" in text

    def test_rates(self):
        best = {"label": "vmap, 1 thread", "seconds": 3.0, "ratio": 12.0}
        batched, sequential = goals.rates({"jaxnn": 0.25, "batched": best})
        assert (batched.reached, batched.bound, batched.is_met) == (12, 10, True)
        assert (sequential.reached, sequential.is_met) == (None, False)
        text = "\n".join(goals.rows([(goals.RATES, {"jaxnn": 0.25, "batched": best})]))
        assert "| 0.25 s | 3 s (vmap, 1 thread) | 12 | >= 10 | yes |" in text
        assert "| >= 40 | not measured |" in text

    @pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
    def test_workloads_are_experiments(self, workload):
        arguments = [f"--flagfile={workload.flagfile}", *workload.flags]
        experiment, _ = command_line.parse(["", *arguments], "fp32")
        assert experiment.precision == "fp32"


class TestReadme:
    def write(self, folder, text) -> pathlib.Path:
        (folder / "README.md").write_text(text)
        return folder / "README.md"

    def test_around(self, tmp_path):
        text = f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n"
        assert benchmark.around(self.write(tmp_path, text)) == ("before\n", "\nafter\n")

    def test_without_markers(self, tmp_path):
        path = self.write(tmp_path, f"{benchmark.BEGIN}\n")
        with pytest.raises(UserError, match=r"^--readme: [^\n]* lacks the lines"):
            benchmark.around(path)
        with pytest.raises(UserError, match=r"^--readme: cannot read [^\n]*$"):
            benchmark.around(tmp_path / "none.md")

    def test_of_the_repository_has_markers(self):
        benchmark.around(pathlib.Path("launch/experiments/README.md"))

    def test_is_written_between_them(self, tmp_path, monkeypatch, capsys):
        text = f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n"
        path = self.write(tmp_path, text)
        monkeypatch.setattr(
            benchmark, "measure", lambda w, *_: benchmark.Measured(w, REPORT)
        )
        values = types.SimpleNamespace(
            readme=str(path), workloads=["W6"], workdir=str(tmp_path), rounds=3
        )
        assert benchmark.main(values) == 0
        written = path.read_text()
        assert written.startswith("before\n")
        assert written.endswith(f"{benchmark.END}\nafter\n")
        assert "old" not in written
        assert "W6 Transformer" in written
        assert "medians of 3 rounds" in capsys.readouterr().out


def test_unknown_workload():
    with pytest.raises(UserError, match=r"^--workloads: unknown 'W9'; known: W1, W2"):
        benchmark.known(["W9"])

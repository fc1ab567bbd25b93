"""Tests of parity/speed/comparison.py, table.py and bars.py on made-up results."""

import json

import pytest
from rich.console import Console

from jaxnn.experiment.flags.config import Experiment
from parity.speed import bars, table
from parity.speed.comparison import Machine, as_json, best_torch, find, ratio
from tests.parity.speed.results import RESULTS, failed, result

MACHINE = Machine(step=2e9, peak=1e11)


class TestRatios:
    def test_best_torch_by_field(self):
        found = {
            field: best_torch(RESULTS, field).competitor.label
            for field in ("training", "wall", "memory")
        }
        assert found == {
            "training": "compiled, 1 thread",
            "wall": "eager PyTorch",
            "memory": "eager, 1 thread",
        }

    def test_ratio_is_of_medians(self):
        assert ratio(RESULTS, best_torch(RESULTS, "training"), "training") == 1.25
        assert ratio(RESULTS, best_torch(RESULTS, "wall"), "wall") == 0.8

    def test_nothing_to_compare(self):
        only = [failed("jaxnn", "jaxnn", "no"), RESULTS[2]]
        assert find(only, "jaxnn") is None
        assert ratio(only, only[1], "training") is None
        assert best_torch(only[:1], "training") is None

    def test_share_of_peak(self):
        # 10 steps of 2 GFLOP in 2 s of 100 GFLOP/s.
        assert MACHINE.share(RESULTS[0]) == pytest.approx(0.1)
        assert Machine().share(RESULTS[0]) is None
        assert MACHINE.share(RESULTS[1]) is None


class TestJson:
    content = as_json(Experiment(precision="fp32"), 3, MACHINE, RESULTS)

    def test_is_json(self):
        assert json.loads(json.dumps(self.content, allow_nan=False)) == self.content

    def test_names(self):
        assert set(self.content) == {
            "format",
            "experiment",
            "precision",
            "rounds",
            "flops_per_step",
            "peak_flops_per_second",
            "competitors",
            "best_pytorch",
        }
        for entry in self.content["competitors"]:
            assert bool(entry["runs"]) != bool(entry["failure"])
            assert ("medians" in entry) == bool(entry["runs"])

    def test_best(self):
        assert self.content["best_pytorch"]["training"] == {
            "label": "compiled, 1 thread",
            "ratio": 1.25,
        }


class TestTable:
    def lines(self, results) -> list[str]:
        console = Console(width=120, record=True)
        table.print_table("title", results, MACHINE, console)
        return console.export_text().splitlines()

    def test_has_a_row_for_each(self):
        lines = self.lines(RESULTS)
        for each in RESULTS:
            assert any(each.competitor.label in line for line in lines)
        assert any("compiled, 1 thread (best)" in line for line in lines)

    def test_says_why_one_failed(self):
        assert "DeepSpeed failed: No module named 'deepspeed'" in self.lines(RESULTS)

    def test_sums_up(self):
        assert "training: PyTorch / jaxnn 1.25 (compiled, 1 thread)" in self.lines(
            RESULTS
        )

    def test_without_any_run(self):
        lines = self.lines([failed("jaxnn", "jaxnn", "no")])
        assert lines[-1] == "jaxnn failed: no"


class TestBars:
    def test_draws_a_picture(self, tmp_path):
        bars.draw("title", RESULTS, tmp_path / "speed.png")
        assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
        assert [path.name for path in tmp_path.iterdir()] == ["speed.png"]

    def test_of_one(self, tmp_path):
        bars.draw("title", [result("jaxnn", "jaxnn", [1.0])], tmp_path / "speed.png")
        assert (tmp_path / "speed.png").exists()

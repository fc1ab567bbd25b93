"""Tests of parity/free/judge_ends.py: the printed table, and both stacks for real."""

import io
import json

import pytest
from rich.console import Console

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from parity.free import judge_ends
from parity.free.verdict import DIVERGENCE, SAME, judge
from tests.parity.free.verdict_test import ends, outcome

EXPERIMENT = Experiment(
    name="iris",
    dataset="iris",
    model="mlp",
    hidden_sizes=(8,),
    loss="cross_entropy",
    epochs=3,
    batch_size=32,
    preprocess="standardize",
    num_devices=1,
    precision="fp32",
    patience=2,
    validation_fraction=0.2,
)


class TestPrint:
    def test_table(self):
        console = Console(file=io.StringIO(), width=120)
        judge_ends.print_verdict(
            {
                "torch": judge(outcome(weight=99.0), ends()),
                "jax": judge(outcome(), ends()),
            },
            "iris",
            console,
        )
        rows = [line.split() for line in console.file.getvalue().splitlines()]
        assert [
            "train",
            "loss",
            "0.00",
            "8",
            "0.00",
            "0.0e+00",
            "0.0e+00",
            "4.0e+00",
        ] in rows
        assert [
            "parameters",
            "40.01",
            "0",
            "0.00",
            "2.4e+00",
            "0.0e+00",
            "2.0e+01",
        ] in rows


class TestStacks:
    def judged(self, tmp_path, *torch_flags, **changes):
        """Trains both stacks -> (parity, verdict.json, printed text)."""
        from parity.stacks import initial_params

        experiment = EXPERIMENT.replace(workdir=str(tmp_path / "run"), **changes)
        data = load_dataset(experiment)
        console = Console(file=io.StringIO(), width=200)
        initial = initial_params(experiment, data)
        workdir = artifacts.create_workdir(experiment, "parity")
        artifacts.write_params(workdir / "initial.safetensors", initial)
        modules = {"jax": "jaxnn.train", "torch": "torch_ref.train"}
        parity = judge_ends.main(
            experiment, data, initial, workdir, modules, torch_flags, console
        )
        return (
            parity,
            json.loads((workdir / "verdict.json").read_text()),
            console.file.getvalue(),
        )

    def test_parity(self, tmp_path):
        parity, verdict, text = self.judged(tmp_path)
        assert parity, text
        assert verdict["verdict"] == verdict["recordings"]["torch"]["verdict"] == SAME
        torch = verdict["recordings"]["torch"]["quantities"]
        assert torch["steps"]["distance"] == 0
        assert torch["params/hidden_0/kernel"]["distance"] > 0, (
            "two stacks that agree to the bit were not two stacks"
        )
        assert "torch: same computation, worst " in text

    def test_divergence(self, tmp_path):
        # eps changes each of Adam's updates by a hundredth or more, which the rounding
        # of 12 steps does not hide.
        parity, verdict, text = self.judged(tmp_path, "--adam_eps=1e-3")
        assert not parity
        assert (
            verdict["verdict"]
            == verdict["recordings"]["torch"]["verdict"]
            == DIVERGENCE
        )
        assert verdict["recordings"]["jax"]["verdict"] == SAME
        assert "torch: DIVERGENCE, furthest off is params/" in text

    def test_statistics_that_depend_on_devices(self, tmp_path):
        with pytest.raises(
            UserError, match=r"--mode=free: .*--nosync_batch_norm.*--num_devices=1"
        ):
            self.judged(tmp_path, num_devices=2, sync_batch_norm=False)

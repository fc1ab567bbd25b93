"""Whole runs of jaxnn.train: the workdir contract, the metrics it promises, exact
resumption."""

import csv
import gc
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags.config import Experiment

EXPERIMENTS = pathlib.Path("launch/experiments")
SUMMARY = {
    "experiment",
    "stack",
    "precision",
    "epochs",
    "steps",
    "skipped_steps",
    "train_loss",
    "test_loss",
    "final",
    "num_params",
    "num_devices",
    "train_seconds",
    "compile_seconds",
    "samples_per_second",
    "versions",
}


def trained(run, workdir, module, name, *arguments):
    """The summary of a run that ended well."""
    done = run(
        module,
        f"--flagfile={EXPERIMENTS / name}.flags",
        f"--workdir={workdir}",
        *arguments,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workdir / "summary.json").read_text()), done


class TestExperiments:
    """Each reaches the metric that the head of its flagfile promises."""

    @pytest.mark.parametrize("module", ["jaxnn.train", "torch_ref.train"])
    def test_linear_regression(self, run, tmp_path, module):
        summary, done = trained(run, tmp_path, module, "linear_regression")
        assert summary["final"]["weight_error"] < 0.01
        assert summary["final"]["bias_error"] < 0.01
        assert summary["final"]["quality"] == "excellent"
        assert "quality: excellent" in done.stdout
        assert done.stdout.splitlines()[:3] == [
            "layer   output  parameters          count",
            "output  1       kernel 1x1, bias 1      2",
            "2 parameters",
        ]
        assert re.search(r"^epochs: 30 in \S+ s, \S+ m?s each", done.stdout, re.M)
        with open(tmp_path / "metrics.csv") as file:
            last = list(csv.DictReader(file))[-1]
        for name in ("weight", "bias"):
            assert float(last[name]) == summary["final"][name]

    def test_breast_cancer(self, run, tmp_path):
        assert (
            trained(run, tmp_path, "jaxnn.train", "breast_cancer")[0]["final"][
                "accuracy"
            ]
            >= 0.95
        )

    def test_digits(self, run, tmp_path):
        assert (
            trained(run, tmp_path, "jaxnn.train", "digits")[0]["final"]["accuracy"]
            >= 0.96
        )

    def test_without_flags_it_is_the_linear_regression(self, run, tmp_path):
        done = run("jaxnn.train", f"--workdir={tmp_path}", "--noplots")
        assert done.returncode == 0
        assert "quality: excellent" in done.stdout


class TestContract:
    @pytest.mark.parametrize(
        ("module", "precision"),
        [
            ("jaxnn.train", "fp32"),
            ("jaxnn.train", "fp64"),
            ("jaxnn.train", "bf16"),
            ("jaxnn.train", "fp16"),
            ("torch_ref.train", "fp16"),
        ],
    )
    def test_files(self, run, tmp_path, module, precision):
        summary, _ = trained(
            run,
            tmp_path,
            module,
            "breast_cancer",
            "--epochs=3",
            f"--precision={precision}",
        )
        assert summary.keys() >= SUMMARY
        assert (summary["epochs"], summary["steps"], summary["num_params"]) == (
            3,
            45,
            4097,
        )
        assert summary["precision"] == precision
        rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
        assert list(rows[0])[:5] == [
            "epoch",
            "step",
            "learning_rate",
            "train_loss",
            "test_loss",
        ]
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        params = load_file(tmp_path / "params.safetensors")
        assert {name: array.shape for name, array in params.items()} == {
            "hidden_0/kernel": (30, 64),
            "hidden_0/bias": (64,),
            "hidden_1/kernel": (64, 32),
            "hidden_1/bias": (32,),
            "output/kernel": (32, 1),
            "output/bias": (1,),
        }
        assert {array.dtype for array in params.values()} == {
            np.dtype("f8" if precision == "fp64" else "f4")
        }
        assert {path.name for path in (tmp_path / "plots").iterdir()} == {
            "learning_curve.png",
            "confusion_matrix.png",
        }

    def test_its_flagfile_runs_it_again_to_the_bit(self, run, tmp_path):
        trained(
            run,
            tmp_path / "a",
            "jaxnn.train",
            "breast_cancer",
            "--epochs=3",
            "--noplots",
        )
        done = run(
            "jaxnn.train",
            f"--flagfile={tmp_path / 'a' / 'experiment.flags'}",
            f"--workdir={tmp_path / 'b'}",
        )
        assert done.returncode == 0
        files = ("experiment.flags", "metrics.csv", "params.safetensors")
        assert all(
            (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
            for name in files
        )


class TestEarlyStopping:
    FLAGS = (
        "--validation_fraction=0.2",
        "--learning_rate=0.01",
        "--dropout_rates=0,0",
        "--noplots",
    )

    def test_keeps_the_parameters_of_the_best_epoch_to_the_bit(self, run, tmp_path):
        """A run that ends at that epoch has the very same ones."""
        summary, done = trained(
            run,
            tmp_path / "a",
            "jaxnn.train",
            "breast_cancer",
            *self.FLAGS,
            "--patience=3",
            "--evaluate_train",
        )
        rows = list(
            csv.DictReader((tmp_path / "a" / "metrics.csv").read_text().splitlines())
        )
        losses = [float(row["validation_loss"]) for row in rows]
        best = int(np.argmin(losses)) + 1
        assert (summary["best_epoch"], summary["epochs"], summary["stopped_early"]) == (
            best,
            best + 3,
            True,
        )
        assert summary["epochs"] < 100
        assert f"parameters of epoch {best} of {best + 3} kept" in done.stdout
        kept = rows[best - 1]
        assert summary["test_loss"] == float(kept["test_loss"])
        assert summary["final"]["loss_gap"] == float(kept["test_loss"]) - float(
            kept["evaluated_train_loss"]
        )
        assert summary["final"]["accuracy"] == pytest.approx(
            float(kept["test_accuracy"]), rel=1e-6
        )
        trained(
            run,
            tmp_path / "b",
            "jaxnn.train",
            "breast_cancer",
            *self.FLAGS,
            f"--epochs={best}",
        )
        files = [(tmp_path / name / "params.safetensors").read_bytes() for name in "ab"]
        assert files[0] == files[1]


class TestResume:
    def test_equals_the_uninterrupted_run_to_the_bit(self, run, tmp_path):
        flags = (
            "--epochs=6",
            "--checkpoint_every=2",
            "--noplots",
            "--precision=fp16",
            "--loss_scale_window=20",
        )
        trained(run, tmp_path / "whole", "jaxnn.train", "breast_cancer", *flags)
        trained(run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags)
        for name in ("summary.json", "params.safetensors"):
            (tmp_path / "cut" / name).unlink()
        summary, _ = trained(
            run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags, "--resume"
        )
        assert summary["skipped_steps"] > 0
        for name in ("metrics.csv", "params.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "cut" / name
            ).read_bytes()

    def test_running_statistics_are_resumed_too(self, run, tmp_path):
        flags = (
            "--epochs=4",
            "--checkpoint_every=2",
            "--noplots",
            "--normalization=batch",
            "--accumulation_steps=2",
        )
        for name in ("whole", "cut"):
            trained(run, tmp_path / name, "jaxnn.train", "breast_cancer", *flags)
        for name in ("summary.json", "batch_stats.safetensors"):
            (tmp_path / "cut" / name).unlink()
        trained(
            run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags, "--resume"
        )
        for name in ("metrics.csv", "params.safetensors", "batch_stats.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "cut" / name
            ).read_bytes()

    def test_refuses_a_run_that_max_steps_ended(self, run, tmp_path):
        flags = ("--max_steps=20", "--checkpoint_every=1", "--noplots")
        trained(run, tmp_path, "jaxnn.train", "breast_cancer", *flags)
        done = run(
            "jaxnn.train",
            f"--flagfile={EXPERIMENTS / 'breast_cancer.flags'}",
            f"--workdir={tmp_path}",
            *flags,
            "--resume",
        )
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --resume: the run in {tmp_path} is complete; there is "
            "nothing left to do\n"
        )

    def test_early_stopping_goes_on_where_it_was(self, run, tmp_path):
        """The same best epoch, though it lies before the cut, and the same end."""
        flags = (
            "--epochs=40",
            "--patience=4",
            "--validation_fraction=0.2",
            "--learning_rate=0.03",
            "--noplots",
            "--checkpoint_every=2",
        )
        whole, _ = trained(
            run, tmp_path / "whole", "jaxnn.train", "breast_cancer", *flags
        )
        assert whole["stopped_early"]
        assert whole["epochs"] - whole["best_epoch"] == 4
        trained(run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags)
        for name in ("summary.json", "params.safetensors"):
            (tmp_path / "cut" / name).unlink()
        cut, _ = trained(
            run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags, "--resume"
        )
        assert cut["final"] == whole["final"]
        for name in ("metrics.csv", "params.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "cut" / name
            ).read_bytes()

    def test_a_run_stopped_before_its_first_checkpoint_begins_anew(self, run, tmp_path):
        flags = ("--epochs=4", "--checkpoint_every=2", "--noplots")
        for name in ("whole", "cut"):
            trained(run, tmp_path / name, "jaxnn.train", "breast_cancer", *flags)
        for path in ("summary.json", "params.safetensors"):
            (tmp_path / "cut" / path).unlink()
        shutil.rmtree(tmp_path / "cut" / "checkpoints")
        trained(
            run, tmp_path / "cut", "jaxnn.train", "breast_cancer", *flags, "--resume"
        )
        for name in ("metrics.csv", "params.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "cut" / name
            ).read_bytes()

    def test_refuses_another_experiment(self, run, tmp_path):
        trained(
            run,
            tmp_path,
            "jaxnn.train",
            "breast_cancer",
            "--epochs=2",
            "--checkpoint_every=1",
            "--noplots",
        )
        done = run(
            "jaxnn.train",
            f"--flagfile={EXPERIMENTS / 'breast_cancer.flags'}",
            f"--workdir={tmp_path}",
            "--resume",
            "--epochs=4",
            "--checkpoint_every=1",
        )
        assert done.returncode == 2
        assert (
            done.stderr
            == "error: --epochs: 4 now, 2 in the run to resume; they must be equal\n"
        )


def test_a_program_that_trains_gets_back_what_it_had(tmp_path):
    def held():
        settings = {name: getattr(jax.config, name) for name in train.SETTINGS}
        listening = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(listening)
        handler = signal.getsignal(signal.SIGTERM)
        return settings, dict(os.environ), handler, listening

    before = held()
    experiment = Experiment(
        precision="fp64", num_samples=32, epochs=1, plots=False, workdir=str(tmp_path)
    )
    train.main(experiment)
    assert held() == before


def test_a_run_leaves_neither_programs_nor_data_in_memory(tmp_path, monkeypatch):
    held = []

    def load(experiment):
        data = load_dataset(experiment)
        held.extend(map(weakref.ref, (data.train_inputs, data.test_inputs)))
        return data

    def programs_after_a_run(name: str) -> int:
        experiment = Experiment(num_samples=32, epochs=1, precision="fp32", plots=False)
        train.main(experiment.replace(workdir=str(tmp_path / name)))
        gc.collect()
        return len(jax.devices()[0].client.live_executables())

    monkeypatch.setattr(train, "load_dataset", load)
    # The first run compiles what every run shares.
    assert programs_after_a_run("first") == programs_after_a_run("second")
    assert len(held) == 4
    assert [array for array in held if array() is not None] == []


def test_an_error_does_not_wait_for_other_threads():
    """As Orbax's, which wait for a checkpoint that will never be."""
    program = (
        "import threading; from jaxnn import train; "
        "threading.Thread(target=threading.Event().wait).start(); train.leave(2)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=100)
    assert done.returncode == 2

"""Tests of jaxnn/experiment/results/run_log.py."""

import dataclasses
import platform
import types

import numpy as np
import pytest

from jaxnn.experiment.data.sources.generated import linear
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.layer_table import Network

EXPERIMENT = Experiment(
    name="tiny", precision="fp16", num_samples=8, epochs=2, batch_size=4, plots=False
)
DATA = linear(EXPERIMENT)
NO = np.zeros(2, bool)
YES = np.array([False, True])
PARAMS = {
    "output/kernel": np.array([[2]], np.float32),
    "output/bias": np.array([1.5], np.float32),
}


@pytest.fixture
def log(tmp_path):
    with run_log.RunLog(EXPERIMENT, DATA, "jax", tmp_path, "mae") as log:
        yield log


def train_losses(tmp_path):
    return list(artifacts.read_metrics(tmp_path)["train_loss"])


def losses(*values):
    return np.array(values, np.float32)


class TestRunLog:
    def test_resume_names_a_column_that_was_renamed(self, log, tmp_path):
        (tmp_path / artifacts.METRICS).write_text(
            "epoch,step,loss,test_loss\n1,2,3,4\n"
        )
        with pytest.raises(UserError, match=r"^--resume: .* has no column train_loss"):
            log.resume(1, 0)

    def test_a_row_an_epoch(self, log, tmp_path):
        log.epoch(0, losses(1, 2), np.array([4, 4]), NO, 0.125, {"test": (0.5, 0.25)})
        log.epoch(
            1, losses(0.5), np.array([4]), NO[:1], 0.0625, {"test": (0.25, 0.125)}
        )
        assert {
            name: list(column)
            for name, column in artifacts.read_metrics(tmp_path).items()
        } == {
            "epoch": [1, 2],
            "step": [2, 3],
            "learning_rate": [0.125, 0.0625],
            "train_loss": [1.5, 0.5],
            "test_loss": [0.5, 0.25],
            "test_mae": [0.25, 0.125],
        }

    def test_a_run_that_began_without_its_line_goes_on_without(self, log, tmp_path):
        for epoch, line in enumerate((None, (2.5, 0.5))):
            log.epoch(
                epoch, losses(1), np.array([4]), NO[:1], 0.1, {"test": (1, 1)}, line
            )
        found = artifacts.read_metrics(tmp_path)
        assert list(found["epoch"]) == [1, 2]
        assert "weight" not in found

    def test_train_loss_is_weighted_by_samples(self, log, tmp_path):
        log.epoch(0, losses(1, 5), np.array([3, 1]), NO, 0.1, {"test": (1, 1)})
        assert train_losses(tmp_path) == [2.0]

    @pytest.mark.parametrize("overflow", [np.inf, np.nan])
    def test_a_skipped_step_whose_loss_overflowed_is_left_out_and_counted(
        self, log, tmp_path, overflow
    ):
        log.epoch(0, losses(1, overflow), np.array([3, 1]), YES, 0.1, {"test": (1, 1)})
        assert train_losses(tmp_path) == [1.0]
        assert log.skipped_steps == 1

    def test_a_static_loss_scale_that_skips_every_step_ends_the_run(self, tmp_path):
        experiment = EXPERIMENT.replace(static_loss_scale=2.0**30)
        with run_log.RunLog(experiment, DATA, "jax", tmp_path, "mae") as log:
            log.epoch(0, losses(1, 2), np.array([4, 4]), YES, 0.1, {"test": (1, 1)})
            with pytest.raises(
                UserError,
                match=r"^--static_loss_scale: at 1\.07374e\+09 all 2 steps of epoch 2 "
                r"overflowed and were skipped; give a smaller one, or leave it out",
            ):
                log.epoch(1, losses(1, 2), np.ones(2), ~NO, 0.1, {"test": (1, 1)})

    def test_tells_what_was_read_where_it_writes(self, tmp_path, capsys):
        data = dataclasses.replace(DATA, notes=("read t.csv", "  a: number"))
        for workdir in (tmp_path, None):
            with run_log.RunLog(EXPERIMENT, data, "jax", workdir, "mae"):
                pass
        assert capsys.readouterr().out.count("read t.csv\n  a: number\n") == 1

    def test_shows_the_network_where_it_writes(self, tmp_path, capsys):
        network = Network({"output/kernel": (1, 1)}, {"output": (1,)})
        for workdir in (tmp_path, None):
            with run_log.RunLog(EXPERIMENT, DATA, "jax", workdir, "mae") as log:
                log.network(network)
        assert capsys.readouterr().out.count("\n1 parameters\n") == 1

    def test_a_skipped_step_with_a_finite_loss_counts_in_the_mean(self, log, tmp_path):
        log.epoch(0, losses(1, 5), np.array([3, 1]), YES, 0.1, {"test": (1, 1)})
        assert train_losses(tmp_path) == [2.0]

    @pytest.mark.parametrize(
        ("values", "skipped", "test"),
        [
            ((1, np.nan), NO, (1, 1)),
            ((np.inf, np.inf), ~NO, (1, 1)),
            ((1, 1), NO, (np.nan, 1)),
            ((1, 1), NO, (1, np.inf)),
        ],
    )
    def test_stops_on_what_is_not_finite(self, log, tmp_path, values, skipped, test):
        with pytest.raises(
            UserError, match=r"^metrics\.csv: (train_loss|test_loss|test_mae) is "
        ):
            log.epoch(
                0, losses(*values), np.array([4, 4]), skipped, 0.1, {"test": test}
            )
        assert not (tmp_path / "metrics.csv").exists()

    def test_resume_goes_on_where_the_checkpoint_was(self, log, tmp_path):
        for epoch in range(2):
            log.epoch(epoch, losses(1, 1), np.array([4, 4]), YES, 0.1, {"test": (1, 1)})
        with run_log.RunLog(EXPERIMENT, DATA, "jax", tmp_path, "mae") as resumed:
            resumed.resume(1, skipped_steps=1)
            resumed.epoch(1, losses(2), np.array([4]), ~NO[:1], 0.1, {"test": (1, 1)})
        assert list(artifacts.read_metrics(tmp_path)["step"]) == [2, 3]
        assert train_losses(tmp_path) == [1.0, 2.0]
        assert resumed.skipped_steps == 2

    def test_finish_writes_summary_and_params(self, log, tmp_path, capsys):
        log.epoch(
            0, losses(1, np.inf), np.array([4, 4]), YES, 0.125, {"test": (0.5, 0.25)}
        )
        clock = types.SimpleNamespace(
            seconds={"train": 2.0, "compile": 0.5}, end=lambda stage: None
        )
        log.finish(
            PARAMS,
            DATA.test_targets + np.float32(0.5),
            clock,
            ["cpu x", "cpu y"],
            ["numpy"],
            {"more": 7},
        )
        summary = artifacts.read_summary(tmp_path)
        spread = DATA.test_targets - DATA.test_targets.mean(dtype=np.float64)
        r2 = pytest.approx(1 - 0.25 / np.mean(np.square(spread)), rel=1e-12)
        assert summary.pop("final") == {
            "mae": 0.5,
            "rmse": 0.5,
            "max_error": 0.5,
            "r2": r2,
            "weight": 2.0,
            "bias": 1.5,
            "weight_error": 0.0,
            "bias_error": 0.5,
            "weight_error_percent": 0.0,
            "bias_error_percent": 50.0,
            "quality": "poor",
        }
        assert summary == {
            "experiment": "tiny",
            "stack": "jax",
            "precision": "fp16",
            "epochs": 1,
            "steps": 2,
            "skipped_steps": 1,
            "train_loss": 1.0,
            "test_loss": 0.5,
            "train_seconds": 2.0,
            "compile_seconds": 0.5,
            "samples_per_second": 4.0,
            "num_params": 2,
            "num_devices": 2,
            "device": "cpu x",
            "more": 7,
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
        }
        back = artifacts.read_arrays(tmp_path / "params.safetensors", "--init_params")
        assert {name: array.tolist() for name, array in back.items()} == {
            "output/kernel": [[2.0]],
            "output/bias": [1.5],
        }
        assert "1 of 2 steps skipped (FP16 overflow)" in capsys.readouterr().out

    def test_a_run_killed_while_it_draws_is_not_complete(
        self, log, tmp_path, monkeypatch
    ):
        def killed(*arguments):
            raise SystemExit

        log._experiment = EXPERIMENT.replace(plots=True)
        monkeypatch.setattr("jaxnn.experiment.results.plots.draw", killed)
        log.epoch(0, losses(1, 1), np.array([4, 4]), NO, 0.125, {"test": (0.5, 0.25)})
        clock = types.SimpleNamespace(seconds={"train": 2.0, "compile": 0.5})
        with pytest.raises(SystemExit):
            log.finish(PARAMS, DATA.test_targets, clock, ["cpu"], [])
        assert (tmp_path / artifacts.PARAMS).exists()
        assert not (tmp_path / artifacts.SUMMARY).exists()

    def test_finish_writes_nothing_if_a_parameter_is_not_finite(self, log, tmp_path):
        log.epoch(0, losses(1, 1), np.array([4, 4]), NO, 0.125, {"test": (0.5, 0.25)})
        clock = types.SimpleNamespace(
            seconds={"train": 2.0, "compile": 0.5}, end=lambda stage: None
        )
        params = PARAMS | {"output/bias": np.array([np.nan], np.float32)}
        with pytest.raises(UserError, match="bias"):
            log.finish(params, DATA.test_targets, clock, ["cpu"], [])
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]

    def test_a_rank_without_a_workdir_writes_and_shows_nothing(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        with run_log.RunLog(EXPERIMENT, DATA, "torch", None, "mae") as log:
            log.epoch(
                0, losses(1, np.inf), np.array([4, 4]), YES, 0.1, {"test": (1, 1)}
            )
            log.finish(PARAMS, DATA.test_targets, run_log.Clock(), ["cpu"], [])
        assert log.skipped_steps == 1
        assert list(tmp_path.iterdir()) == []
        assert capsys.readouterr().out == ""


class TestClock:
    def test_stages_follow_each_other_and_parts_are_taken_out(self, monkeypatch):
        ticks = iter([10.0, 11.0, 19.0])
        monkeypatch.setattr(
            run_log,
            "time",
            types.SimpleNamespace(
                perf_counter=lambda: next(ticks), process_time=lambda: 3.0
            ),
        )
        clock = run_log.Clock()
        clock.end("data")
        clock.end("train", compile=2.0)
        assert clock.seconds == {
            "import": 3.0,
            "data": 1.0,
            "compile": 2.0,
            "train": 6.0,
        }


class TestVersions:
    def test_python_and_each_package(self):
        assert run_log.versions(["numpy"]) == {
            "python": platform.python_version(),
            "numpy": np.__version__,
        }

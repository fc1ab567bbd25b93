"""Tests of `python -m parity.oracle`."""

import csv
import os
import pathlib
import sys

import numpy as np
import pytest

from jaxnn import models, train_step
from jaxnn.experiment.data import preprocessing
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files import artifacts, trace
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.results import report
from jaxnn.experiment.results.promises import read_promises
from parity.oracle import __main__ as oracle
from parity.oracle import train

EXPERIMENTS = pathlib.Path("launch/experiments").absolute()
WINE = (
    f"--flagfile={EXPERIMENTS / 'wine.flags'}",
    "--epochs=3",
    "--dropout_rates=0.2",
    "--schedule=cosine",
)


@pytest.fixture
def run_oracle(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["parity.oracle", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command_line.run(oracle.main, oracle.__doc__, "fp64", oracle.define_flags)
        return end.value.code, *capsys.readouterr()

    return start


def parse(*arguments):
    return command_line.parse(["", *map(str, arguments)], "fp64", oracle.define_flags)[
        0
    ]


def read_rows(workdir):
    with (workdir / artifacts.METRICS).open() as file:
        return list(csv.DictReader(file))


class TestTraining:
    @pytest.mark.parametrize(
        "name",
        [
            "mlp_xor",
            "perceptron_and",
            "perceptron_xor",
            "logistic_breast_cancer",
            "breast_cancer",
            "wine",
        ],
    )
    def test_keeps_the_promise_of_the_flagfile(self, name):
        # In full: each takes three seconds at most.
        flagfile = EXPERIMENTS / f"{name}.flags"
        experiment = parse(f"--flagfile={flagfile}")
        data = load_dataset(experiment)
        trained = train.train(experiment, data, train.start(experiment, data))
        final = report.final_metrics(
            experiment, data, trained.state.params, trained.outputs
        )
        promises = read_promises(flagfile)
        assert promises
        assert all(promise.is_met(name, {name: final}) for promise in promises)

    def test_shows_epochs_and_the_final_metric_and_writes_nothing(self, run_oracle):
        code, out, err = run_oracle(
            f"--flagfile={EXPERIMENTS / 'mlp_xor.flags'}", "--epochs=20"
        )
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "mlp_xor: mlp in NumPy float64, 33 parameters"
        assert lines[1].startswith("epoch 2/20  train_loss ")
        assert lines[10].startswith("epoch 20/20  train_loss ")
        assert lines[11].startswith("test accuracy ")
        assert lines[-1].startswith("seconds: ")
        assert os.listdir() == []

    def test_is_jaxnns_run_in_float64(self, run, tmp_path):
        # From the same parameters, with dropout, Adam and a schedule: 27 steps, over
        # which rounding grows slowly.
        experiment = parse(*WINE)
        data = load_dataset(experiment)
        variables = train_step.initial_variables(
            models.build(experiment, data.signature), 0, data.signature
        )
        initial = {
            name: np.asarray(array)
            for name, array in trace.flatten(variables["params"]).items()
        }
        artifacts.write_params(tmp_path / "initial.safetensors", initial)
        more = [
            "--noplots",
            "--overwrite",
            f"--init_params={tmp_path / 'initial.safetensors'}",
        ]
        done = run(
            "jaxnn.train",
            *WINE,
            *more,
            "--precision=fp64",
            f"--workdir={tmp_path / 'jax'}",
        )
        assert done.returncode == 0, done.stderr
        oracle.train_and_report(parse(*WINE, *more, f"--workdir={tmp_path / 'oracle'}"))
        ours, theirs = (
            artifacts.read_arrays(tmp_path / who / artifacts.PARAMS, "")
            for who in ("oracle", "jax")
        )
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert ours[name].dtype == array.dtype == np.float64
            assert np.abs(array - initial[name]).max() > 1e-3
            assert np.linalg.norm(ours[name] - array) <= 1e-10 * np.linalg.norm(array)
        for mine, other in zip(
            read_rows(tmp_path / "oracle"), read_rows(tmp_path / "jax"), strict=True
        ):
            assert mine.keys() == other.keys()
            # jaxnn sums the losses of a split in float32.
            for column in mine:
                assert float(mine[column]) == pytest.approx(
                    float(other[column]), rel=1e-6
                )

    def test_writes_what_a_run_holds(self, run_oracle, tmp_path):
        code, _, err = run_oracle(*WINE, "--normalization=batch", "--workdir=run")
        assert (code, err) == (0, "")
        assert sorted(os.listdir("run")) == sorted(
            [
                artifacts.FLAGS,
                artifacts.METRICS,
                artifacts.PARAMS,
                artifacts.BATCH_STATS,
            ]
        )
        assert [row["epoch"] for row in read_rows(tmp_path / "run")] == ["1", "2", "3"]
        code, _, err = run_oracle(*WINE, "--workdir=run")
        assert code == 2
        assert err.startswith("error: --workdir: run holds another run")

    def test_depends_on_the_seed(self):
        experiment = parse(*WINE, "--max_steps=4")
        data = load_dataset(experiment)
        first, again, other = (
            train.train(e, data, train.start(e, data)).rows[-1]["train_loss"]
            for e in (experiment, experiment, experiment.replace(seed=1))
        )
        assert first == again != other

    def test_early_stopping_keeps_the_best_epoch(self, run_oracle):
        # At a learning rate that soon overshoots.
        code, out, _ = run_oracle(
            *WINE,
            "--validation_fraction=0.2",
            "--patience=2",
            "--learning_rate=10",
            "--epochs=50",
            "--schedule=constant",
        )
        assert code == 0
        experiment = parse(
            *WINE,
            "--validation_fraction=0.2",
            "--patience=2",
            "--learning_rate=10",
            "--epochs=50",
            "--schedule=constant",
        )
        data = load_dataset(experiment)
        trained = train.train(experiment, data, train.start(experiment, data))
        losses = [row["validation_loss"] for row in trained.rows]
        assert trained.epoch == 1 + int(np.argmin(losses))
        assert len(losses) == trained.epoch + 2 < 50
        assert train.evaluate(experiment, data, trained.state)[0][
            "validation_loss"
        ] == min(losses)
        assert (
            f"early stopping: parameters of epoch {trained.epoch} of {len(losses)} kept"
            in out
        )

    def test_bytes_are_scaled_as_they_are_used(self):
        images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
        for method, expected in (("min_max", [0, 0.2, 1]), ("none", [0, 51, 255])):
            data = Dataset(
                images,
                np.zeros(3, np.int32),
                images,
                np.zeros(3, np.int32),
                "multiclass",
                scaling=preprocessing.fit(method, images),
            )
            np.testing.assert_allclose(
                train.scaled(data, images).ravel(),
                expected,
                rtol=np.finfo(np.float32).eps,
            )
            assert train.scaled(data, images.astype(np.float32)).max() == 255


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--precision=fp32"],
                "--precision: the oracle computes in fp64, got fp32",
            ),
            (
                ["--nosync_batch_norm", "--num_devices=2"],
                "--nosync_batch_norm: the oracle has no devices",
            ),
            (
                ["--checkpoint_every=1"],
                "--resume, --checkpoint_every: the oracle keeps no checkpoints",
            ),
            (
                ["--init_params=none.safetensors"],
                "--init_params: cannot read none.safetensors",
            ),
            (["--dataset=iris"], "--loss: mse does not fit --dataset=iris"),
            # The weights grow by 1e30 a step, the loss by its square.
            (
                ["--optimizer=sgd", "--learning_rate=1e30", "--epochs=1"],
                "step 6: loss is not finite; training diverged",
            ),
            (["--at=a=1"], "--at: belongs to --graph"),
            (["--graph_file=x.svg"], "--graph_file: belongs to --graph"),
            (["--graph", "--graph_file=x.png"], "--graph_file: x.png must end in"),
            (["--graph="], "--graph: '' computes nothing"),
            (["--graph=a*", "--at=a=1"], "--graph: cannot read 'a*': "),
            (["--graph=a*b", "--at=a=1"], "--at: gives no value for b"),
            (["--graph=a", "--at=a"], "--at: takes a=1,b=2 and so on, got 'a'"),
            (["--grap"], "--grap: unknown flag; did you mean"),
        ],
    )
    def test_one_line_and_exit_code_2(self, run_oracle, arguments, message):
        code, _, err = run_oracle(*arguments)
        assert code == 2
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1
        assert os.listdir() == []

    def test_parameters_of_another_network(self, run_oracle):
        artifacts.write_params(
            pathlib.Path("p.safetensors"),
            {"output/kernel": np.ones((1, 2)), "output/bias": np.ones(1)},
        )
        code, _, err = run_oracle("--init_params=p.safetensors")
        assert code == 2
        assert err == (
            "error: --init_params: output/kernel is (1, 2) in p.safetensors, (1, 1) "
            "in --model=linear\n"
        )

    def test_a_trace_that_is_asked_for_is_not_written_and_said_so(self, run_oracle):
        code, out, _ = run_oracle(f"--flagfile={EXPERIMENTS / 'perceptron_and.flags'}")
        assert code == 0
        assert out.startswith("note: --record: the oracle writes no trace\n")


class TestGraph:
    def test_the_example(self, run_oracle):
        # --graph alone, with explicit values, and with an explicit expression.
        code, alone, err = run_oracle("--graph")
        assert (code, err) == (0, "")
        assert alone.splitlines()[1].split() == ["a", "given", "1", "1474448.3"]
        assert alone.splitlines()[7].split() == ["g", "e", "^", "f", "117649", "1"]
        assert run_oracle("--graph", "--at=a=1,b=2,c=3")[1] == alone
        written_out = run_oracle("--graph=(a+b*c)^(b*c*a)", "--at=a=1,b=2,c=3")[1]
        # The derivatives of the inputs, whatever lies between.
        assert [line.split()[-1] for line in written_out.splitlines()[1:4]] == [
            line.split()[-1] for line in alone.splitlines()[1:4]
        ]

    def test_of_ones_own(self, run_oracle):
        code, out, _ = run_oracle("--graph=y = x**2", "--at=x=3")
        assert code == 0
        assert [line.split()[-2:] for line in out.splitlines()[1:3]] == [
            ["3", "6"],
            ["9", "1"],
        ]
        assert out.splitlines()[3:] == [
            "d y / d x = 6, the sum over",
            "  x -> y: 6 = 6",
        ]

    def test_a_drawing(self, run_oracle, tmp_path):
        path = tmp_path / "graph.mmd"
        code, out, _ = run_oracle("--graph", f"--graph_file={path}")
        assert (code, out.splitlines()[-1]) == (0, f"file: {path}")
        assert path.read_text().startswith("flowchart LR")

    def test_the_module_starts(self, run):
        done = run("parity.oracle", "--graph")
        assert (done.returncode, done.stderr) == (0, "")
        assert "e ^ f" in done.stdout
        assert "--graph: Expression" in run("parity.oracle", "--help").stdout

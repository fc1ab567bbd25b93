"""Whole sweeps: each member is a run of jaxnn.train, kills and divergence included."""

import csv
import math

import numpy as np
import pytest

from jaxnn.experiment.diagnosis import MEASURED
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, diagnostics, trace
from jaxnn.experiment.flags import command_line
from jaxnn.sweep import __main__ as sweep
from jaxnn.sweep import networks, running, store, training
from tests import own_nets
from tests.jaxnn.sweep.sweeping import SMALL, members, parsed, swept, trained

ROUNDING = 1e-5
MEASURES = ("train_loss", "test_loss", "test_accuracy")
CASES = {
    "adam": (
        "--grid=learning_rate=0.001,0.1; adam_b1=0.9,0.8; l2=0.01,0.1",
        "--optimizer=adam",
        "--clip_norm=0.5",
    ),
    "adamw": (
        "--grid=weight_decay=0.01,0.5; label_smoothing=0.1,0.3; seed=0,3; "
        "adam_eps=1e-8,1e-3; clip_norm=0.1,1",
        "--optimizer=adamw",
        "--rank_by=metric",
    ),
    "momentum": (
        "--grid=momentum=0.5,0.9; schedule=constant,cosine; dropout_rates=0.5,0|0.2,0",
        "--optimizer=momentum",
        "--activation=leaky_relu",
    ),
    "fp16": (
        "--grid=initial_scale_power=8,24; leaky_relu_alpha=0.01,0.3; "
        "initializer=lecun_normal,he_uniform",
        "--precision=fp16",
        "--activation=leaky_relu",
        "--optimizer=sgd",
    ),
    "splits": ("--grid=split_seed=1,2", "--validation_fraction=0.2", "--patience=1"),
}


def assert_is_run(row, run):
    for name in MEASURES:
        assert float(row[name]) == pytest.approx(run[name], rel=ROUNDING), name


class TestMembers:
    @pytest.mark.parametrize("name", CASES)
    def test_last_is_a_run_of_its_own(self, tmp_path, name):
        rows = swept(tmp_path / "sweep", *CASES[name])
        found = members(*CASES[name])
        assert len(rows) == len(found)
        run = trained(found[-1].experiment, tmp_path / "run")
        assert_is_run(rows[-1], run)

    def test_folds(self, tmp_path):
        arguments = ("--grid=learning_rate=0.01,0.1", "--num_folds=4")
        rows = swept(tmp_path / "sweep", *arguments)
        assert [row["fold"] for row in rows] == list("01230123")
        last = members(*arguments)[-1]
        assert_is_run(rows[-1], trained(last.experiment, tmp_path / "run"))

    def test_own_network(self, tmp_path):
        (tmp_path / "net.py").write_text(own_nets.RENAMED)
        model = f"--model={tmp_path / 'net.py'}:Net"
        # The gradient of a bias before batch normalization is rounding alone, of which
        # Adam would make a step.
        more = ("--hidden_sizes=", "--optimizer=sgd")
        arguments = (model, *more, "--grid=learning_rate=0.01,0.1")
        rows = swept(tmp_path / "sweep", *arguments)
        last = members(*arguments)[-1]
        assert_is_run(rows[-1], trained(last.experiment, tmp_path / "run"))

    @pytest.mark.parametrize("together", [1, 4])
    def test_blocks_of_networks_are_the_same_to_rounding(
        self, tmp_path, monkeypatch, together
    ):
        arguments = ("--grid=learning_rate=0.01,0.1; seed=0..2",)
        batched = swept(tmp_path / "batched", *arguments)
        monkeypatch.setattr(training, "networks_together", lambda num_bytes: together)
        alone = swept(tmp_path / "alone", *arguments)
        for one, other in zip(alone, batched):
            assert_is_run(one, {name: float(other[name]) for name in MEASURES})


class TestFiles:
    def test_best_flagfile_reproduces_its_member(self, tmp_path):
        rows = swept(tmp_path / "sweep", "--grid=learning_rate=0.001,0.1; seed=0,1")
        best = min(rows, key=lambda row: float(row["test_loss"]))
        flagfile = f"--flagfile={tmp_path / 'sweep' / sweep.BEST}"
        experiment, _ = command_line.parse(["train", flagfile], "fp32")
        assert str(experiment.learning_rate) == best["learning_rate"]
        assert str(experiment.seed) == best["seed"]
        assert_is_run(best, trained(experiment, tmp_path / "run"))

    def test_pictures(self, tmp_path):
        swept(tmp_path, "--grid=learning_rate=0.001,0.1; optimizer=sgd,adam", "--plots")
        pictures = {path.name for path in (tmp_path / "plots").iterdir()}
        assert pictures == {"parameters.png", "curves.png"}

    def test_curves_end_where_the_table_does(self, tmp_path):
        rows = swept(tmp_path, "--grid=learning_rate=0.001,0.1")
        with (tmp_path / sweep.CURVES).open() as file:
            curves = list(csv.DictReader(file))
        assert len(curves) == sum(int(row["epochs"]) for row in rows)
        assert {name: curves[-1][name] for name in MEASURES} == {
            name: rows[-1][name] for name in MEASURES
        }

    def test_diagnoses_are_those_of_a_run(self, tmp_path):
        more = ("--diagnose", "--batch_size=16", "--grid=learning_rate=0.01,0.1")
        swept(tmp_path / "sweep", *more)
        last = members(*more)[-1]
        trained(last.experiment, tmp_path / "run")
        wanted = diagnostics.read(tmp_path / "run")
        with (tmp_path / "sweep" / artifacts.DIAGNOSTICS).open() as file:
            found = [row for row in csv.DictReader(file) if row["member"] == "1"]
        for name in MEASURED:
            values = [float(row[name] or math.nan) for row in found]
            given = wanted.measured[name].reshape(-1)
            np.testing.assert_allclose(values, given, rtol=1e-4, err_msg=name)

    def test_networks_are_those_of_runs(self, tmp_path):
        more = ("--normalization=batch", "--grid=learning_rate=0.01,0.1")
        swept(tmp_path / "sweep", *more, "--save_networks", "--optimizer=sgd")
        last = members(*more, "--optimizer=sgd")[-1]
        trained(last.experiment, tmp_path / "run")
        network = networks.read(tmp_path / "sweep", 1)
        for name, tree in (
            (artifacts.PARAMS, network.params),
            (artifacts.BATCH_STATS, network.batch_stats),
        ):
            wanted = artifacts.read_params(tmp_path / "run" / name, "")
            found = trace.flatten(tree)
            assert found.keys() == wanted.keys()
            for key in wanted:
                np.testing.assert_allclose(
                    found[key], wanted[key], rtol=1e-3, atol=1e-6
                )

    def test_a_diverged_network_is_not_kept(self, tmp_path):
        more = ("--optimizer=sgd", "--save_networks")
        swept(tmp_path, *more, "--grid=learning_rate=0.1,1e30")
        kept = {path.name for path in (tmp_path / networks.FOLDER).iterdir()}
        assert kept == {"0"}


class TestDivergence:
    def test_is_recorded_and_the_others_go_on(self, tmp_path, capsys):
        sgd = "--optimizer=sgd"
        rows = swept(tmp_path / "a", sgd, "--grid=learning_rate=0.1,1e30")
        alone = swept(tmp_path / "b", sgd, "--grid=learning_rate=0.1")
        assert rows[1]["status"] == "diverged"
        assert int(rows[1]["diverged_at_step"]) < 10
        assert rows[1]["test_loss"] == ""
        assert rows[0] == alone[0]
        assert "diverged" in capsys.readouterr().out

    def test_of_all_members_is_said(self, tmp_path):
        with pytest.raises(UserError, match="every member diverged"):
            swept(tmp_path, "--optimizer=sgd", "--grid=learning_rate=1e30,1e31")
        assert (tmp_path / sweep.TABLE).exists()


class TestResume:
    GRID = "--grid=learning_rate=0.001,0.1; optimizer=sgd,adam"

    @pytest.mark.parametrize("more", [(), ("--halving=2", "--epochs=8")])
    def test_killed_sweep_goes_on_bit_for_bit(self, tmp_path, monkeypatch, more):
        swept(tmp_path / "whole", self.GRID, *more)
        monkeypatch.setattr(running, "SAVE_SECONDS", 0.0)
        monkeypatch.setattr(training, "CALL_SECONDS", 0.0)
        save, saves = store.Store.save, []

        def killed(self, name, part):
            save(self, name, part)
            saves.append(name)
            if len(saves) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store.Store, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                swept(tmp_path / "killed", self.GRID, *more)
        swept(tmp_path / "killed", self.GRID, *more, "--resume")
        for name in (sweep.TABLE, sweep.BEST):
            whole, killed_one = (
                (tmp_path / folder / name).read_bytes()
                for folder in ("whole", "killed")
            )
            assert whole == killed_one

    def test_of_another_sweep_is_refused(self, tmp_path):
        swept(tmp_path, "--grid=seed=0,1")
        with pytest.raises(UserError, match="--grid: "):
            swept(tmp_path, "--grid=seed=0,2", "--resume")


class TestHalving:
    def test_survivors_are_whole_runs(self, tmp_path):
        arguments = ("--grid=learning_rate=0.001,0.01,0.03,0.1", "--epochs=8")
        halved = swept(tmp_path / "halved", *arguments, "--halving=2")
        whole = swept(tmp_path / "whole", *arguments)
        assert sorted(row["epochs"] for row in halved) == ["2", "2", "4", "8"]
        (last,) = (row for row in halved if row["status"] == "done")
        same = whole[int(last["member"])]
        assert_is_run(last, {name: float(same[name]) for name in MEASURES})


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--grid=",), "--grid: give at least one axis"),
            (("--grid=lerning_rate=1",), "did you mean learning_rate"),
            (("--grid=workdir=a,b",), "--grid: workdir changes nothing"),
            (("--grid=num_folds=2,3",), "give --num_folds itself"),
            (("--grid=learning_rate=0.1,-1",), "--learning_rate: must be greater"),
            (("--grid=learning_rate=0.1,x",), "--learning_rate"),
            (
                ("--grid=seed=0..9", "--max_members=9"),
                "--max_members: the sweep has 10",
            ),
            (
                ("--grid=split_seed=0,1", "--num_folds=3"),
                "split_seed changes the split",
            ),
            (("--grid=label_smoothing=0,0.1", "--loss=hinge"), "--label_smoothing: "),
            (("--grid=seed=0,1", "--halving=2"), "--halving: --grid has a single"),
            (("--grid=epochs=1,2", "--halving=2"), "take epochs out of --grid"),
            (("--grid=label_smoothing=0,0.1",), "--rank_by: label_smoothing of --grid"),
            (("--grid=seed=0,1", "--rank_by=size"), "--rank_by: unknown 'size'"),
            (
                (
                    "--grid=seed=0,1",
                    "--save_networks",
                    "--patience=2",
                    "--validation_fraction=0.2",
                ),
                "--save_networks: ",
            ),
            (
                ("--grid=validation_fraction=0,0.2",),
                "--grid: validation_fraction=0 has no validation split",
            ),
            (("--grid=dataset=iris,wine",), "dataset changes what is learned"),
            (("--grid=seed=0,1", "--record=full"), "--record: "),
            (("--grid=batch_size=8,4096",), "--batch_size: "),
            (("--grid=schedule=constant,linear_warmup",), "--warmup_steps: "),
        ],
    )
    def test_is_said_and_leaves_nothing(self, tmp_path, arguments, message):
        with pytest.raises(UserError) as error:
            swept(tmp_path / "sweep", *arguments)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "sweep").exists()

    def test_ends_with_one_line_and_exit_code_2(self, run, tmp_path):
        done = run("jaxnn.sweep", *SMALL, "--grid=", f"--workdir={tmp_path / 's'}")
        assert done.returncode == 2
        assert done.stderr.startswith("error: --grid: ")
        assert done.stderr.count("\n") == 1

    def test_memory_for_no_member(self, tmp_path):
        with pytest.raises(UserError, match="--device_cache_mb: "):
            swept(
                tmp_path / "sweep",
                "--grid=seed=0,1",
                "--hidden_sizes=700,700",
                "--device_cache_mb=1",
            )

    def test_help_tells_the_syntax(self):
        _, values = parsed(*SMALL, "--grid=seed=0,1")
        assert values.grid == "seed=0,1"
        assert "--random" in sweep.__doc__

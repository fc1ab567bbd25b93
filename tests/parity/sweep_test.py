"""Many judgements in a table."""

import pathlib

import pytest

from jaxnn.experiment.errors import UserError
from parity import sweep

FLAGFILE = pathlib.Path("launch/experiments/linear_regression.flags")


def outcome(status=0, z=1.5, complaint=""):
    quantities = {
        "loss": {"compared": 3, "max_z": z, "step": 1, "tensor": ""},
        "grads": {"compared": 0},
    }
    verdict = {
        "recordings": {"torch": {"quantities": quantities}},
        "seconds": {"recording": 2.0, "judging": 1.0},
    }
    return sweep.CellOutcome(
        sweep.SweepCell(FLAGFILE, "fp32", 0),
        status,
        {} if complaint else verdict,
        complaint,
    )


class TestReport:
    @pytest.mark.parametrize(
        ("outcomes", "status"),
        [
            ([outcome()], 0),
            ([outcome(), outcome(1, 99.0)], 1),
            ([outcome(1, 99.0), outcome(2, complaint="error: x")], 2),
            ([outcome(2, complaint="error: --data_path: no MNIST there")], 0),
        ],
    )
    def test_exit_code(self, outcomes, status, tmp_path, capsys):
        assert sweep.report(outcomes, tmp_path) == status
        assert f"{len(outcomes)} judgements" in capsys.readouterr().out

    def test_row(self):
        assert sweep.row(outcome()) == (
            "linear_regression",
            "fp32",
            "0",
            "parity",
            "1.50",
            "step 1 loss ",
            "2 + 1",
        )
        assert (
            sweep.row(outcome(2, complaint="error: --data_path: none"))[3] == "no data"
        )
        assert sweep.row(outcome(2, complaint="error: else"))[3] == "NOT JUDGED"


class TestArguments:
    def test_the_rest_goes_to_every_judgement(self):
        values, more = sweep.parse(["--seeds=0,1", "--steps=3", "--optimizer=sgd"])
        assert (values["seeds"].value, more) == (
            ["0", "1"],
            ["--steps=3", "--optimizer=sgd"],
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--precisions=int8"], "--precisions: unknown precision 'int8'"),
            (["--seeds=a"], "--seeds: whole numbers"),
            (["--seeds="], "--seeds: whole numbers"),
        ],
    )
    def test_bad_ones(self, arguments, message):
        with pytest.raises(UserError, match=message):
            sweep.parse(arguments)

    @pytest.mark.parametrize("arguments", [[], ["nothing.flags"]])
    def test_needs_flagfiles(self, arguments):
        with pytest.raises(UserError, match="flagfile"):
            sweep.main(arguments)


def test_for_real(run, tmp_path):
    done = run(
        "parity.sweep",
        str(FLAGFILE),
        "--precisions=fp32",
        "--steps=3",
        f"--workdir={tmp_path / 'sweep'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 judgements: 0 diverged" in done.stdout

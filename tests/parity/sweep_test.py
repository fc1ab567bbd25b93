"""Many judgements in a table."""

import pathlib

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from parity import sweep
from parity.sweep import Status

FLAGFILE = pathlib.Path("launch/experiments/linear_regression.flags")


def outcome(status=Status.PARITY, z=1.5, complaint=""):
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
            ([outcome(), outcome(Status.DIVERGENCE, 99.0)], 1),
            (
                [
                    outcome(Status.DIVERGENCE, 99.0),
                    outcome(Status.NOT_JUDGED, complaint="error: x"),
                ],
                2,
            ),
            ([outcome(Status.NO_DATA, complaint="error: no MNIST there")], 0),
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
            sweep.row(outcome(Status.NO_DATA, complaint="error: none"))[3] == "no data"
        )
        row = sweep.row(outcome(Status.NOT_JUDGED, complaint="error: else"))
        assert row[3] == "NOT JUDGED"


def parsed(*arguments):
    return command_line.parse_arguments(
        ["", *arguments], sweep.define_flags, forwards=True
    )


class TestArguments:
    def test_the_rest_goes_to_every_judgement(self):
        arguments = parsed("--seeds=0,1", "--steps=3", "--optimizer=sgd")
        assert (arguments.values["seeds"].value, arguments.forwarded) == (
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
            sweep.check(parsed(*arguments).values)

    @pytest.mark.parametrize("arguments", [[], ["nothing.flags"]])
    def test_needs_flagfiles(self, arguments):
        with pytest.raises(UserError, match="flagfile"):
            sweep.main(parsed(*arguments))


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

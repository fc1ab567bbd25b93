"""Bad input: one line on stderr that names the flag, exit code 2, no traceback, nothing
written."""

import os
import re
import subprocess
import sys

import pytest
from absl import flags

import jaxnn.generate
import jaxnn.predict
import jaxnn.train
import parity.compare
import parity.run
from jaxnn.describe import __main__ as describe
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from parity.own import __main__ as own

MLP = ("--model=mlp", "--hidden_sizes=8,4")
CASES = {
    "unknown flag": (
        ["--learning_rat=1"],
        "--learning_rat: unknown flag; did you mean",
    ),
    "unknown dataset": (
        ["--dataset=nope"],
        "--dataset: unknown value 'nope'; known: linear, gates, approximation",
    ),
    "unknown model": (["--model=nope"], "--model: unknown value 'nope'"),
    "unknown activation": (["--activation=nope"], "--activation: unknown value 'nope'"),
    "unknown optimizer": (["--optimizer=nope"], "--optimizer: unknown value 'nope'"),
    "unknown precision": (
        ["--precision=int8"],
        "--precision: unknown value 'int8'; known: fp64, fp32, bf16, fp16",
    ),
    "rates do not match": (
        [*MLP, "--dropout_rates=.1,.2,.3"],
        "--dropout_rates: 3 rates for 2 hidden layers",
    ),
    "rate of one": (
        [*MLP, "--dropout_rates=1,0"],
        "--dropout_rates: must be less than 1",
    ),
    "hidden layers of a linear model": (
        ["--hidden_sizes=8"],
        "--hidden_sizes: --model=linear has no hidden layers",
    ),
    "mlp without layers": (
        ["--model=mlp"],
        "--hidden_sizes: --model=mlp needs at least one hidden layer",
    ),
    "sizes that are no numbers": (
        ["--model=mlp", "--hidden_sizes=8,x"],
        "--hidden_sizes: takes whole numbers",
    ),
    "batch larger than the data": (
        ["--batch_size=10001"],
        "--batch_size: 10001 is larger than the 10000 training",
    ),
    "batch not divisible": (
        ["--num_devices=3"],
        "--batch_size: 32 is not divisible by --num_devices=3",
    ),
    "more devices than there are": (
        ["--num_devices=32"],
        "--num_devices: 32 asked for",
    ),
    "negative learning rate": (
        ["--learning_rate=-1"],
        "--learning_rate: must be greater than 0, got -1.0",
    ),
    "zero learning rate": (
        ["--learning_rate=0"],
        "--learning_rate: must be greater than 0",
    ),
    "learning rate nan": (
        ["--learning_rate=nan"],
        "--learning_rate: must be a finite number, got nan",
    ),
    "learning rate no number": (["--learning_rate=fast"], "--learning_rate=fast"),
    "loss that does not fit": (
        ["--loss=cross_entropy"],
        "--loss: cross_entropy does not fit --dataset=linear",
    ),
    "flagfile that does not exist": (
        ["--flagfile=/nowhere.flags"],
        "--flagfile: cannot read it",
    ),
    "stray argument": (["breast_cancer"], "unexpected argument 'breast_cancer'"),
    "initial parameters that do not exist": (
        ["--init_params=/nowhere.safetensors"],
        "--init_params: cannot read",
    ),
    "resume of nothing": (["--resume"], "--resume:"),
    "resume and overwrite": (
        ["--resume", "--overwrite"],
        "--resume: continues a run, --overwrite replaces it",
    ),
}


def ends(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """(exit code, stderr) of jaxnn.train."""
    monkeypatch.setattr(sys, "argv", ["jaxnn.train", *arguments])
    with pytest.raises(SystemExit) as end:
        command_line.run(
            jaxnn.train.main, jaxnn.train.__doc__, default_precision="fp32"
        )
    return end.value.code, capsys.readouterr().err


class TestBadInput:
    @pytest.mark.parametrize("case", CASES)
    def test_one_line_and_exit_code_2(self, monkeypatch, capsys, tmp_path, case):
        arguments, message = CASES[case]
        code, err = ends(
            monkeypatch, capsys, *arguments, f"--workdir={tmp_path / 'run'}"
        )
        assert code == 2, err
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_workdir_that_holds_a_run(self, monkeypatch, capsys, tmp_path):
        (tmp_path / "metrics.csv").write_text("epoch\n1\n")
        code, err = ends(monkeypatch, capsys, f"--workdir={tmp_path}")
        assert code == 2, err
        assert "--overwrite" in err
        assert "--resume" in err
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]

    def test_a_full_disk_while_pictures_are_written(self, tmp_path):
        """Files of more than 20,000 bytes fail as on a full disk."""
        code = (
            "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, "
            "(20_000, 20_000)); sys.argv[0] = 'jaxnn.train'; "
            "runpy.run_module('jaxnn.train', run_name='__main__')"
        )
        command = [
            sys.executable,
            "-c",
            code,
            f"--workdir={tmp_path}",
            "--epochs=2",
            "--num_devices=1",
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        assert done.returncode == 2
        assert re.fullmatch(
            rf"error: cannot write {tmp_path}/plots/\w+\.png: "
            r"File too large; make room\n",
            done.stderr,
        )
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            "data.json",
            "experiment.flags",
            "metrics.csv",
            "params.safetensors",
            "plots",
            "summary.json",
        ]

    def test_divergence_names_step_and_tensor_and_keeps_what_was_written(
        self, monkeypatch, capsys, tmp_path
    ):
        code, err = ends(
            monkeypatch,
            capsys,
            "--optimizer=sgd",
            "--learning_rate=1.5",
            "--num_samples=64",
            f"--workdir={tmp_path}",
            "--noplots",
            "--epochs=200",
        )
        assert code == 2, err
        assert "is not finite; training diverged" in err
        assert "step " in err
        assert err.count("\n") == 1
        rows = (tmp_path / "metrics.csv").read_text().splitlines()
        assert len(rows) > 2
        assert "nan" not in rows[-1]
        assert "inf" not in rows[-1]
        assert not (tmp_path / "summary.json").exists()


DEFINE = [
    jaxnn.generate.define_flags,
    jaxnn.predict.define_flags,
    describe.define_more,
    parity.run.define_flags,
    parity.compare.define_flags,
    own.define_flags,
]


WRONG = {
    "float": ["nan", "inf", "1e400", "1e39", "1e-300", "x", ""],
    "int": ["nan", "1.5", f"{2**31}", "1" + 30 * "0", "x", ""],
}


def numbers_of(define):
    values = flags.FlagValues()
    define(values)
    return [
        (define, name, text)
        for name in values
        for text in WRONG.get(values[name].flag_type(), ())
    ]


class TestNumbers:
    """Of every command: no number that a device does not have."""

    @pytest.mark.parametrize(
        ("define", "name", "text"),
        [case for define in DEFINE for case in numbers_of(define)],
    )
    def test_one_line_names_the_flag(self, define, name, text):
        with pytest.raises(UserError, match=f"^--{name}[:=]") as error:
            command_line.parse_arguments(["", f"--{name}={text}"], define)
        assert "\n" not in str(error.value)


class TestHelp:
    def test_every_flag_with_its_default(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["jaxnn.train", "--help"])
        with pytest.raises(SystemExit) as end:
            command_line.run(
                jaxnn.train.main, jaxnn.train.__doc__, default_precision="fp32"
            )
        out = capsys.readouterr().out
        assert end.value.code == 0
        assert "--learning_rate: Peak step size, per optimizer step. [0.001]" in out

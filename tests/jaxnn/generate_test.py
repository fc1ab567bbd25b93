"""Tests of jaxnn/generate.py on a small language model, trained and read back."""

import sys

import pytest

import jaxnn.generate
from jaxnn import train
from jaxnn.experiment import memory
from jaxnn.experiment.flags import command_line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Workdir of a model that has learned to count from 0 to 9 and over again."""
    folder = tmp_path_factory.mktemp("generate")
    (folder / "text.txt").write_text("0123456789" * 200)
    experiment, _ = command_line.parse(
        [
            "",
            "--dataset=text",
            f"--data_path={folder / 'text.txt'}",
            "--sequence_length=16",
            "--model=gru",
            "--hidden_sizes=32",
            "--loss=cross_entropy",
            "--learning_rate=0.02",
            "--batch_size=8",
            "--epochs=8",
            "--noplots",
            f"--workdir={folder / 'run'}",
        ],
        "fp32",
    )
    train.main(experiment)
    return folder / "run"


@pytest.fixture
def generate(run, monkeypatch, capsys):
    """generate("--prompt=...") -> (exit code, stdout, stderr)."""

    def start(*arguments, workdir=run):
        monkeypatch.setattr(
            sys, "argv", ["jaxnn.generate", f"--workdir={workdir}", *arguments]
        )
        with pytest.raises(SystemExit) as end:
            command_line.run_tool(
                jaxnn.generate.main, jaxnn.generate.__doc__, jaxnn.generate.define_flags
            )
        return end.value.code, *capsys.readouterr()

    return start


class TestMain:
    def test_goes_on_as_the_text_did(self, generate):
        code, out, err = generate("--prompt=78", "--length=25", "--temperature=0")
        assert code == 0, err
        assert out == "78" + "9012345678901234567890123" + "\n"

    def test_training_leaves_a_sample(self, run):
        assert len((run / "sample.txt").read_text()) == train.SAMPLE_LENGTH

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--prompt=abc"], "--prompt: the model has never seen 'a'"),
            (["--length=0"], "--length: must be at least 1"),
            (["--temperature=-1"], "--temperature: must be at least 0"),
            (["--temperature=nan"], "--temperature: must be a finite number, got nan"),
            (["--temperature=1e300"], "--temperature: 1e+300 is outside float32's ra"),
            (["--length=2147483648"], "--length: must be less than 2147483648"),
            (["--seed=1" + 30 * "0"], "--seed: must be less than 2147483648"),
            (["--top_k=-1"], "--top_k: must be at least 0"),
            (["--prompts=x"], "--prompts: unknown flag; did you mean"),
        ],
    )
    def test_bad_input(self, generate, arguments, message):
        code, out, err = generate(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1

    def test_more_characters_than_there_is_memory_for(self, generate, monkeypatch):
        monkeypatch.setattr(memory, "total", lambda: 11_999)
        code, _, err = generate("--length=1000")
        assert code == 2
        assert err.startswith("error: --length: 1000 characters take ")

    def test_a_run_that_is_no_language_model(self, generate, tmp_path):
        experiment, _ = command_line.parse(
            [
                "",
                "--num_samples=32",
                "--epochs=1",
                "--noplots",
                f"--workdir={tmp_path / 'line'}",
            ],
            "fp32",
        )
        train.main(experiment)
        code, _, err = generate(workdir=tmp_path / "line")
        assert code == 2
        assert "is a regression run; text needs a language model" in err

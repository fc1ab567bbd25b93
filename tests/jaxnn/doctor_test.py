"""Tests of jaxnn/doctor.py: runs made to be ill, each named right."""

import pathlib

import pytest

from jaxnn import doctor, train
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments

IRIS = (
    "--dataset=iris",
    "--preprocess=standardize",
    "--model=mlp",
    "--hidden_sizes=16",
    "--loss=cross_entropy",
    "--batch_size=16",
    "--epochs=12",
    "--noplots",
    "--num_devices=1",
)
DEEP = "--hidden_sizes=16,16,16,16,16,16,16,16,16,16"
ILL = {
    "nothing found": ("--learning_rate=0.01",),
    "vanishing gradients": (
        DEEP,
        "--activation=sigmoid",
        "--optimizer=sgd",
        "--learning_rate=0.1",
    ),
    "rate too low": ("--learning_rate=1e-7",),
    "diverging": ("--optimizer=sgd", "--learning_rate=300"),
    "underfitting": ("--l2=0.3", "--optimizer=sgd", "--learning_rate=0.1"),
    "batch too large": ("--batch_size=120", "--learning_rate=0.002"),
    "FP16 underflow": ("--precision=fp16", "--static_loss_scale=1e-4"),
    "inputs not scaled": ("--dataset=wine", "--preprocess=none"),
}


def examined(arguments, workdir, capsys) -> list[str]:
    """What the doctor says of a run with these flags."""
    argv = ["train", *IRIS, *arguments, f"--workdir={workdir}"]
    experiment, _ = command_line.parse(argv, "fp32")
    try:
        train.main(experiment)
        said = capsys.readouterr().out.splitlines()
    except UserError:
        said = None
        capsys.readouterr()
    doctor.main(Arguments(None, [str(workdir)], []))  # pyright: ignore
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if not line.startswith("not seen: ")]
    # A run that comes to its end has said the same.
    if said is not None and found != ["nothing found"]:
        assert said[-len(found) :] == found
    return found


@pytest.mark.parametrize("name", ILL)
def test_names_the_disease_of_a_run(name, tmp_path, capsys):
    more = ("--epochs=40",) if name == "underfitting" else ()
    lines = examined((*ILL[name], *more, "--diagnose"), tmp_path / "run", capsys)
    assert len(lines) == 1
    assert lines[0].startswith(name)


class TestBadInput:
    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(UserError, match=r"^RUN: .* holds no run"):
            doctor.main(Arguments(None, [str(tmp_path)], []))  # pyright: ignore

    @pytest.mark.parametrize("names", [[], ["a", "b"]])
    def test_none_or_several(self, names):
        with pytest.raises(UserError, match=r"^RUN: give the folder of one run"):
            doctor.main(Arguments(None, names, []))  # pyright: ignore

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("metrics.csv", "epoch,step\n1,2\n"),
            ("metrics.csv", "epoch,train_loss\n1,x\n"),
            ("summary.json", "{"),
            ("diagnostics.csv", "a,b\n1,2\n"),
        ],
    )
    def test_names_the_file_that_is_damaged(self, tmp_path, file, text):
        pathlib.Path(tmp_path, "experiment.flags").write_text("--epochs=5\n")
        pathlib.Path(tmp_path, file).write_text(text)
        with pytest.raises(UserError, match=file):
            doctor.main(Arguments(None, [str(tmp_path)], []))  # pyright: ignore

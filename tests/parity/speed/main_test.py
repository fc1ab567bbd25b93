"""Tests of `python -m parity.speed`: what it writes, and how it refuses."""

import json

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.speed import roofline
from parity.speed.__main__ import main
from parity.speed.settings import define

TINY = (
    "--dataset=blobs",
    "--sample_shape=6",
    "--num_classes=3",
    "--num_samples=64",
    "--model=mlp",
    "--hidden_sizes=8",
    "--loss=cross_entropy",
    "--epochs=2",
    "--num_devices=1",
)


def test_end_to_end(run, tmp_path):
    """Plain PyTorch refuses early stopping: its row says so, and the others train."""
    workdir = tmp_path / "speed"
    done = run(
        "parity.speed",
        *TINY,
        "--patience=5",
        "--validation_fraction=0.25",
        "--rounds=1",
        "--competitors=jaxnn,eager",
        f"--workdir={workdir}",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "eager PyTorch failed: --patience: plain PyTorch has none" in done.stdout
    content = json.loads((workdir / "speed.json").read_text())
    jax, torch = content["competitors"]
    assert (jax["kind"], len(jax["runs"]), jax["failure"]) == ("jaxnn", 1, "")
    assert jax["ratios"]["training"] == 1
    assert (torch["runs"], torch["failure"][:10]) == ([], "--patience")
    assert content["flops_per_step"] > 0
    assert content["best_pytorch"] == {}
    assert (workdir / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--competitors=jaxnn,keras"], "--competitors: unknown 'keras'; known: jaxnn"),
        (["--competitors="], "--competitors: give some of jaxnn, deepspeed"),
        (["--rounds=0"], "--rounds=0"),
        (["--resume"], "--resume, --init_params, --record: every competitor"),
        (["--sample_shape="], "--sample_shape: --dataset=blobs needs"),
        (["--batch_size=100"], "--batch_size: 100 is larger than the 64 training"),
        (["--workdir=."], r"--workdir: \. exists; choose another"),
    ],
)
def test_bad_input(flags, message):
    with pytest.raises(UserError, match=rf"^{message}[^\n]*$"):
        main(*command_line.parse(["speed", *TINY, *flags], "fp32", define))


def test_bad_input_ends_the_program(run):
    done = run("parity.speed", *TINY, "--competitors=keras")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --competitors: unknown 'keras'")
    assert done.stderr.count("\n") == 1


class TestRoofline:
    def test_flops_of_a_dense_layer(self, experiment):
        """Forward and gradient of the kernel are 2 b n m each; the rest is small."""
        products = 2 * 2 * experiment.batch_size * 500 * 10
        assert roofline.step_flops(experiment) == pytest.approx(products, rel=0.1)

    def test_microbatches_and_devices_share_one_batch(self, experiment):
        whole = roofline.step_flops(experiment)
        parts = experiment.replace(accumulation_steps=4, num_devices=2)
        assert roofline.step_flops(parts) == pytest.approx(whole, rel=0.1)

    def test_peak(self, monkeypatch):
        monkeypatch.setattr(roofline, "SIZE", 64)
        assert roofline.peak() > 0

    @pytest.fixture
    def experiment(self):
        return Experiment(
            precision="fp32",
            dataset="blobs",
            sample_shape=(500,),
            num_classes=10,
            num_samples=64,
            loss="cross_entropy",
        )

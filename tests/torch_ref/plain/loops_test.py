"""Tests of torch_ref/plain: objective.py, work.py, loops.py and the program."""

import json

import pytest
import torch

from jaxnn.experiment.catalogue import LOSSES
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from torch_ref import losses
from torch_ref.plain import loops, objective
from torch_ref.plain.__main__ import define_more, main, train
from torch_ref.plain.work import prepare, require_supported

EXPERIMENT = Experiment(
    precision="fp32",
    dataset="blobs",
    sample_shape=(8,),
    num_classes=3,
    num_samples=150,
    model="mlp",
    hidden_sizes=(16,),
    loss="cross_entropy",
    learning_rate=0.01,
    epochs=4,
)
DATA = load_dataset(EXPERIMENT)


def trained(experiment: Experiment, variant: str = "eager"):
    work = prepare(experiment, DATA)
    if variant == "tutorial":
        return train(work, loops.tutorial(work)), work
    return train(work, loops.fast(work, compiled=False)), work


class TestObjective:
    @pytest.mark.parametrize("name", LOSSES)
    def test_is_the_mean_of_torch_refs(self, name):
        torch.manual_seed(0)
        experiment = Experiment(loss=name)
        outputs = torch.randn(6, 4)
        targets = torch.randint(4, (6,))
        if "multiclass" not in LOSSES[name]:
            outputs, targets = outputs[:, :1], (targets[:, None] > 1).float()
        found = objective.build(experiment)(outputs, targets)
        torch.testing.assert_close(found, losses.build(name)(outputs, targets).mean())

    def test_smoothed_and_per_step(self):
        torch.manual_seed(0)
        experiment = Experiment(loss="cross_entropy", label_smoothing=0.1)
        outputs, targets = torch.randn(6, 5, 4), torch.randint(4, (6, 5))
        found = objective.build(experiment)(outputs, targets)
        twin = losses.build("cross_entropy", 0.1)(outputs, targets).mean()
        torch.testing.assert_close(found, twin)


class TestLoops:
    @pytest.mark.parametrize("variant", ["tutorial", "eager"])
    def test_learns(self, variant):
        summary, _ = trained(EXPERIMENT, variant)
        assert summary["test_metric"] > 0.6
        assert (summary["epochs"], summary["steps"]) == (4, 20)

    def test_warming_up_changes_nothing(self):
        batch = EXPERIMENT.replace(normalization="batch")
        work = prepare(batch, DATA)
        before = {k: v.clone() for k, v in work.network.state_dict().items()}
        loops.fast(work, compiled=False)
        torch.testing.assert_close(work.network.state_dict(), before, rtol=0, atol=0)
        assert all(p.grad is None for p in work.network.parameters())

    def test_stops_at_max_steps(self):
        summary, _ = trained(EXPERIMENT.replace(max_steps=7))
        assert (summary["epochs"], summary["steps"]) == (2, 7)

    def test_obeys_the_schedule(self):
        _, work = trained(EXPERIMENT.replace(schedule="cosine"))
        assert work.optimizer.param_groups[0]["lr"] < 0.001

    def test_clips(self):
        _, work = trained(EXPERIMENT.replace(clip_norm=1e-6, optimizer="sgd"))
        start = prepare(EXPERIMENT, DATA).network.state_dict()
        torch.testing.assert_close(work.network.state_dict(), start, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "optimizer", Experiment.__dataclass_fields__["optimizer"].metadata["choices"]
    )
    def test_fast_optimizers_compute_the_same(self, optimizer):
        """One step by torch's usual kernel and one by the fused one or `foreach`."""
        experiment = EXPERIMENT.replace(optimizer=optimizer)
        found = []
        for is_fast in (False, True):
            work = prepare(experiment, DATA)
            if is_fast:
                loops.speed_up(work.optimizer)
            work.loss(work.network(work.train[0]), work.train[1]).backward()
            work.optimizer.step()
            found.append(work.network.state_dict())
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


class TestProgram:
    def parse(self, *flags):
        arguments = [
            f"--{name}={value}"
            for name, value in {
                "dataset": "blobs",
                "sample_shape": 4,
                "num_classes": 2,
                "num_samples": 64,
                "loss": "binary_cross_entropy",
                "epochs": 1,
            }.items()
        ]
        return command_line.parse(["plain", *arguments, *flags], "fp32", define_more)

    def test_writes_a_summary(self, tmp_path):
        main(*self.parse(f"--workdir={tmp_path}", "--variant=tutorial"))
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert {"train_seconds", "samples_per_second", "test_loss", "steps"} <= set(
            summary
        )
        assert summary["variant"] == "tutorial"

    def test_unknown_variant(self):
        with pytest.raises(UserError, match=r"^--variant: unknown value 'x'; known: "):
            main(*self.parse("--variant=x"))

    def test_says_when_it_cannot_compile(self, tmp_path, monkeypatch):
        def compile_nothing(*_, **__):
            raise RuntimeError("no compiler\nanywhere")

        monkeypatch.setattr(torch, "compile", compile_nothing)
        with pytest.raises(UserError, match=r"^--variant: torch\.compile fails: no "):
            main(*self.parse(f"--workdir={tmp_path}", "--variant=compiled"))

    @pytest.mark.parametrize(
        "change",
        [
            dict(precision="fp16"),
            dict(patience=2),
            dict(init_params="a.safetensors"),
            dict(accumulation_steps=2),
            dict(num_devices=2),
        ],
    )
    def test_refuses_what_it_does_not_do(self, change):
        name = next(iter(change))
        with pytest.raises(UserError, match=rf"^--[\w, -]*{name}[^\n]*$"):
            require_supported(EXPERIMENT.replace(**change))

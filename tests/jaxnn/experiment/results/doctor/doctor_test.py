"""Tests of jaxnn/experiment/results/doctor: curves and tables that show one disease."""

import numpy as np
import pytest

from jaxnn.experiment.diagnosis import MEASURED, NETWORK
from jaxnn.experiment.files.diagnostics import Diagnostics
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import doctor
from jaxnn.experiment.results.doctor.data_facts import Column, DataFacts
from jaxnn.experiment.results.doctor.evidence import Evidence

EPOCHS = np.arange(1, 21)
FLAT = np.full(20, 0.693)
FALLING = 0.69 * 0.8**EPOCHS
STANDARD = (Column("a", 3, 0, 1, 0), Column("b", 3, 0, 1, 0))
FACTS = DataFacts(400, STANDARD, 0.693)
EXPERIMENT = Experiment(model="mlp", hidden_sizes=(8, 8), loss="cross_entropy")


def evidence(train, held_out=None, facts=FACTS, experiment=EXPERIMENT, **more):
    metrics = {
        "epoch": EPOCHS[: len(train)],
        "step": 13 * EPOCHS[: len(train)],
        "learning_rate": np.full(len(train), 1e-3),
        "train_loss": np.asarray(train),
        "test_loss": np.asarray(train if held_out is None else held_out),
    }
    return Evidence(experiment, metrics, 0, facts=facts, **more)


def diagnosed(**columns) -> Diagnostics:
    """20 diagnoses of three layers in order, but for some columns [1 + layers]."""
    usual = dict.fromkeys(MEASURED, [0.1] * 4) | {"update_ratio": [1e-3] * 4} | columns
    return Diagnostics(
        EPOCHS,
        [NETWORK, "hidden_0", "hidden_1", "output"],
        {name: np.tile(np.array(row, float), (20, 1)) for name, row in usual.items()},
        {
            "loss_scale": np.full(20, 1e-4),
            "skipped": np.zeros(20),
            "loss_gap": np.zeros(20),
        },
    )


def names(known):
    return [finding.name for finding in doctor.examine(known)]


class TestSilence:
    @pytest.mark.parametrize(
        "known",
        [
            evidence(FALLING),
            evidence(FALLING, diagnostics=diagnosed()),
            evidence(FALLING, FALLING * 1.2),
            evidence([0.7, 0.5]),
            evidence(FALLING, experiment=EXPERIMENT.replace(precision="fp16")),
        ],
        ids=["falls", "diagnosed", "a gap", "two epochs", "fp16"],
    )
    def test_of_a_run_in_order(self, known):
        assert names(known) == []


class TestCurves:
    def test_overfitting(self):
        held_out = FALLING + 0.02 * EPOCHS
        [finding] = doctor.examine(evidence(FALLING, held_out))
        assert finding.name == "overfitting"
        best = held_out.argmin() + 1
        assert f"at epoch {best} and {held_out[-1]:.3f} at 20" in finding.sentence
        assert "--patience" in finding.sentence

    def test_early_stopping_has_dealt_with_it(self):
        stops = EXPERIMENT.replace(patience=5)
        assert not names(evidence(FALLING, FALLING + 0.02 * EPOCHS, experiment=stops))

    def test_underfitting(self):
        assert names(evidence(np.maximum(FALLING, 0.5))) == ["underfitting"]

    def test_a_rise(self):
        assert names(evidence(0.5 * 1.3**EPOCHS)) == ["rate too high"]

    def test_a_slow_fall(self):
        assert names(evidence(0.69 - 0.001 * EPOCHS)) == ["rate too low"]

    def test_a_slow_fall_of_few_steps(self):
        known = evidence(
            0.69 - 0.001 * EPOCHS[:7], experiment=EXPERIMENT.replace(batch_size=400)
        )
        assert names(known) == ["batch too large"]

    def test_no_cause_is_named_without_a_figure(self):
        [finding] = doctor.examine(evidence(FLAT))
        assert finding.name == "not decreasing"
        assert "nothing here says why" in finding.sentence
        assert "--diagnose" in finding.sentence

    def test_a_perceptron_without_a_line(self):
        perceptron = Experiment(loss="perceptron", model="perceptron")
        facts = FACTS._replace(guess=None)
        known = evidence(FLAT, facts=facts, experiment=perceptron)
        [finding] = doctor.examine(known)
        assert "--model=mlp" in finding.sentence


class TestGradients:
    @pytest.mark.parametrize(
        ("columns", "name"),
        [
            ({"gradient_norm": [1, 7e-7, 1e-3, 0.78]}, "vanishing gradients"),
            ({"gradient_norm": [1, 1e6, 1e3, 0.78]}, "exploding gradients"),
            ({"activation_std": [1, 1, 1e3, 1e7]}, "exploding activations"),
            ({"dead": [0, 0.1, 1, np.nan]}, "dead units"),
            ({"update_ratio": [1e-6] * 4}, "rate too low"),
            ({"update_ratio": [0.5] * 4}, "rate too high"),
        ],
    )
    def test_of_a_loss_that_stays(self, columns, name):
        known = evidence(FLAT, diagnostics=diagnosed(**columns))
        assert names(known) == [name]

    def test_a_network_that_learns_has_none(self):
        columns = {"gradient_norm": [1, 7e-7, 1e-3, 0.78], "dead": [0, 1, 1, np.nan]}
        assert not names(evidence(FALLING, diagnostics=diagnosed(**columns)))


class TestHalf:
    FP16 = EXPERIMENT.replace(precision="fp16")

    def test_names_layer_and_column_that_overflow(self):
        large = Column("c", 5e4, 0, 1, 0)
        columns = {"gradient_norm": [np.inf, np.inf, 1, 1]}
        known = evidence(
            FALLING,
            facts=FACTS._replace(columns=(*STANDARD, large)),
            experiment=self.FP16,
            diagnostics=diagnosed(**columns),
        )._replace(skipped_steps=100)
        [finding] = doctor.examine(known)
        assert finding.name == "FP16 overflow"
        assert "the gradient of hidden_0 at" in finding.sentence
        assert "the input column 'c' reaches 50000" in finding.sentence

    def test_names_the_layer_whose_gradient_is_lost(self):
        columns = {"underflow": [0.5, 0.2, 0.9, 0]}
        known = evidence(FLAT, experiment=self.FP16, diagnostics=diagnosed(**columns))
        [finding] = doctor.examine(known)
        assert finding.name == "FP16 underflow"
        assert "90% of the gradient of hidden_1" in finding.sentence

    def test_names_the_column_that_is_lost(self):
        tiny = Column("c", 3e-9, 0, 0.5, 1)
        known = evidence(
            FALLING,
            facts=FACTS._replace(columns=(*STANDARD, tiny)),
            experiment=self.FP16,
        )
        assert "input column 'c'" in doctor.examine(known)[0].sentence


class TestInputs:
    WIDE = FACTS._replace(columns=(*STANDARD, Column("proline", 1680, 750, 315, 0)))

    def test_are_named_and_may_be_the_cause_of_the_rest(self):
        [finding] = doctor.examine(evidence(FLAT, facts=self.WIDE))
        assert finding.name == "inputs not scaled"
        assert "'proline' has a deviation of 315" in finding.sentence

    def test_scaled_by_a_flag(self):
        scaled = EXPERIMENT.replace(preprocess="min_max")
        assert not names(evidence(FALLING, facts=self.WIDE, experiment=scaled))


class TestEnded:
    @pytest.mark.parametrize(
        ("error", "name"),
        [
            ("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory", "out of memory"),
            ("RuntimeError: can't allocate memory", "out of memory"),
            ("step 16: loss is not finite; training diverged", "diverging"),
            (
                "step 8: loss overflows at the smallest loss scale (1); try",
                "FP16 overflow",
            ),
            ("KeyError: 'x'", "ended early"),
        ],
    )
    def test_by_what_was_said(self, error, name):
        assert names(Evidence(EXPERIMENT, {}, error=error)) == [name]

    def test_without_a_word(self):
        [finding] = doctor.examine(Evidence(EXPERIMENT, {}, is_cut_off=True))
        assert finding.name == "stopped or killed"
        assert f"after 0 of {EXPERIMENT.epochs} epochs" in finding.sentence


class TestUnseen:
    def test_says_what_diagnose_would_show(self):
        assert "--diagnose" in " ".join(doctor.unseen(evidence(FALLING)))
        assert not doctor.unseen(evidence(FALLING, diagnostics=diagnosed()))

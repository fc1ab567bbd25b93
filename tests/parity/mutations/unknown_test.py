"""Tests of parity/mutations: differences that no switch holds are given no name."""

import json

import pytest

from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.judging.measure import THRESHOLD, Measurement
from parity.measured.difference import Difference
from parity.mutations import score, unknown, unknown_score, wrong_names
from parity.mutations.bases import BASES
from parity.mutations.unknown_score import UnknownOutcome
from parity.semantics import SWITCHES

PRECISIONS = ("fp16", "fp32", "bf16")


def experiment_of(base, precision):
    arguments = ["", *BASES[base], f"--precision={precision}", f"--name={base}"]
    return command_line.parse(arguments, precision)[0]


class TestPlan:
    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_is_of_one_other_flag_that_no_switch_gives(self, base, precision):
        experiment = experiment_of(base, precision)
        known = [
            switch.experiment(experiment)
            for switch in SWITCHES.values()
            if switch.experiment and switch.applies(experiment)
        ]
        for difference in unknown.differences(base, experiment):
            assert difference.experiment != experiment
            assert difference.experiment not in known

    def test_is_of_fifty_at_least_in_each_precision(self):
        for precision in PRECISIONS:
            planted = [
                difference
                for base in BASES
                for difference in unknown.differences(
                    base, experiment_of(base, precision)
                )
            ]
            assert len(planted) >= 50


PLANTED = {
    # Rules and the optimizer; what changes a layer takes ten times as long to judge.
    ("mlp", "fp32"): (
        "--leaky_relu_alpha=0.0100001",
        "--learning_rate=0.00100001",
        "--adam_b1=0.90001",
        "--adam_b2=0.995",
        "--clip_norm=0.200002",
        "--seed=1",
    ),
    # The loss scale halves one overflow late: at first it looks as if it were static.
    ("overflow", "fp16"): (
        "--hysteresis=3",
        "--initial_scale_power=21",
        "--warmup_steps=21",
    ),
    ("growth", "fp16"): ("--loss_scale_window=1000", "--initial_scale_power=5"),
}


@pytest.mark.parametrize(("base", "precision"), PLANTED)
def test_nothing_is_given_a_wrong_name(tmp_path, monkeypatch, base, precision):
    monkeypatch.setitem(unknown.DIFFERENCES, base, PLANTED[base, precision])
    experiment = experiment_of(base, precision)
    bench = score.set_up(base, experiment, tmp_path / "runs", THRESHOLD)
    planted = list(unknown.differences(base, experiment))
    outcomes = list(unknown_score.plant(bench, planted))
    assert len(outcomes) == len(PLANTED[base, precision])
    assert sum(outcome.caught for outcome in outcomes) >= 2
    for outcome in outcomes:
        assert outcome.caught or outcome.silent, unknown_score.line(outcome)
        assert not outcome.wrong, unknown_score.line(outcome)


class TestWrongFigures:
    OWN = Experiment(optimizer="adam", adam_eps=1e-8, clip_norm=0.2)

    def wrong(self, kind, figure, flag, **changes):
        shown = Difference(kind, "said", ("w",), figure, 0.0)
        planted = self.OWN.replace(**changes)
        return wrong_names.wrong_figures([shown], flag, self.OWN, planted)

    def test_a_figure_of_the_flag_is_right(self):
        assert not self.wrong("eps", 1.5e-8, "adam_eps", adam_eps=1.5e-8)

    def test_another_figure_is_wrong(self):
        assert self.wrong("eps", 1.4e-8, "adam_eps", adam_eps=1.5e-8) == ["said"]

    def test_another_kind_is_wrong(self):
        assert self.wrong("rate", 1.5e-8, "adam_eps", adam_eps=1.5e-8) == ["said"]

    def test_a_factor_is_a_share_of_ones_own(self):
        assert not self.wrong("gradient factor", 1.5, "clip_norm", clip_norm=0.3)
        assert self.wrong("gradient factor", 0.3, "clip_norm", clip_norm=0.3)


AT = Measurement(2, "grads", "w", 100.0, 0.1)


def outcome(
    expected: Measurement | None = AT,
    found: Measurement | None = AT,
    wrong: tuple[str, ...] = (),
    complaint: str = "",
):
    said = "no known difference explains it" if found else ""
    return UnknownOutcome(
        "mlp", "fp32", "l1=0.1", expected, found, said, wrong, wrong, complaint
    )


class TestScore:
    @pytest.mark.parametrize(
        ("one", "enough"),
        [
            (outcome(), True),
            (outcome(expected=None, found=None), True),
            # Located elsewhere: caught, and nothing wrong was said.
            (outcome(expected=AT._replace(step=3)), True),
            (outcome(found=None), False),
            (outcome(wrong=("adam_eps",)), False),
            (outcome(None, None, complaint="exit code 1"), False),
        ],
    )
    def test_is_enough(self, one, enough):
        assert unknown_score.is_enough([outcome(), one]) == enough

    def test_says_what_was_said(self):
        assert unknown_score.line(outcome()) == (
            "mlp fp32 l1=0.1: caught at step 2 grads w (z 100); no known difference "
            "explains it"
        )
        assert unknown_score.line(outcome(wrong=("a",))).endswith("; WRONG: a")
        assert unknown_score.line(outcome(None, None)).endswith("l1=0.1: silent")
        assert "MISSED at step 2 grads w" in unknown_score.line(outcome(found=None))
        assert "NOT JUDGED" in unknown_score.line(outcome(None, None, complaint="x"))

    def test_counts(self):
        written = unknown_score.as_json(
            [outcome(), outcome(None, None), outcome(wrong=("a",))], "abc"
        )
        assert json.loads(json.dumps(written))["commit"] == "abc"
        counts = {key: written[key] for key in ("planted", "silent", "caught", "wrong")}
        assert counts == {"planted": 3, "silent": 1, "caught": 2, "wrong": 1}

"""Recorded rates beside a schedule: only what one way to count explains is named."""

import optax
import pytest
import torch

from parity.measured.fit_types import Fit
from parity.measured.numbers import Measured
from parity.own.causes import rates
from tests.parity.own.small_net import RATE, adamw, judged, record

SCHEDULE = [0.9**n for n in range(40)]
WARM_UP = [0.01 * (n + 1) for n in range(40)]
WAYS = list(rates.counts(ranks=2, parts=4))


def measured(values):
    return tuple(Measured(value, 1e-6 * abs(value)) for value in values)


def told(recorded, schedule=SCHEDULE, steps=None):
    steps = steps or range(len(recorded))
    fit = Fit("w", tuple(steps), rates=measured(recorded))
    found = rates.explained(fit, list(steps), measured(schedule), WAYS)
    return found and found[0]


class TestNames:
    def test_early(self):
        assert told(SCHEDULE[1:6]) == "learning_rate_early"

    def test_late(self):
        assert told([SCHEDULE[0], *SCHEDULE[:4]]) == "learning_rate_late"

    def test_by_ranks(self):
        assert told(WARM_UP[0:10:2], WARM_UP) == "schedule_by_ranks"

    def test_by_microbatches(self):
        assert told(WARM_UP[0:20:4], WARM_UP) == "schedule_by_parts"

    def test_skipped_steps_counted(self):
        steps = [0, 1, 4, 5, 6]
        recorded = [SCHEDULE[step] for step in steps]
        assert told(recorded, steps=steps) == "schedule_counts_skipped"

    def test_never_stepped(self):
        assert told([1.0] * 5) == "schedule_missing"

    def test_the_sentence_has_both_figures(self):
        fit = Fit("w", tuple(range(5)), rates=measured(SCHEDULE[1:6]))
        _, text = rates.explained(fit, list(range(5)), measured(SCHEDULE), WAYS)
        assert text.startswith(
            "rates: step 0 used 0.9, your schedule gives 1; yours is one step behind"
        )


OTHERS = {
    "two steps early": SCHEDULE[2:7],
    "two steps late": [*SCHEDULE[:1] * 3, *SCHEDULE[1:3]],
    "half a step": [0.9 ** (n + 0.5) for n in range(5)],
    "another decay": [0.8**n for n in range(5)],
    "shifted by a tenth of a percent": [1.001 * rate for rate in SCHEDULE[1:6]],
    "early but for one step": [*SCHEDULE[1:5], SCHEDULE[4]],
    "too few to tell": SCHEDULE[1:3],
}


class TestSilence:
    @pytest.mark.parametrize("name", OTHERS)
    def test_other_rates_are_not_named(self, name):
        assert told(OTHERS[name]) is None

    def test_a_constant_schedule_has_no_name(self):
        assert told(SCHEDULE[1:6], [1.0] * 40) is None

    def test_two_ways_that_both_explain(self):
        """Where a schedule falls off once, early and by ranks may be the same."""
        schedule = [1.0, 1.0, 1.0] + [0.1] * 37
        assert told([1.0, 1.0, 0.1, 0.1, 0.1], schedule) is None


def scheduled(rate):
    def between(net, made, step):
        made.param_groups[0]["lr"] = rate(step)

    return between


def falling(step):
    return RATE * 0.9**step


class TestRecorded:
    """By real optimizers on both sides."""

    OWN = optax.adamw(optax.exponential_decay(RATE, 1, 0.9), eps=1e-3, weight_decay=0.1)
    SGD = optax.sgd(optax.exponential_decay(RATE, 1, 0.9))

    def test_late_under_adam(self, tmp_path):
        late = scheduled(lambda step: falling(max(step - 1, 0)))
        (best,) = judged(record(tmp_path / "t", between=late), self.OWN).explanations
        assert best.label == "learning_rate_late"
        assert best.explains
        assert "step 1 used 0.01, your schedule gives 0.009" in best.text

    def test_early_under_sgd(self, tmp_path):
        def sgd(params):
            return torch.optim.SGD(params, lr=RATE)

        early = scheduled(lambda step: falling(step + 1))
        trace = record(tmp_path / "t", optimizer=sgd, between=early)
        (best,) = judged(trace, self.SGD).explanations
        assert best.label == "learning_rate_early"
        assert best.explains

    def test_in_step_there_is_nothing_to_say(self, tmp_path):
        trace = record(tmp_path / "t", optimizer=adamw, between=scheduled(falling))
        assert judged(trace, self.OWN).verdict.is_parity

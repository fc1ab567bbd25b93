"""Guesses are ruled out at a glance only where the whole measurement would as well."""

import functools

import pytest

from parity.judging.guesses import Guesses
from parity.judging.measure import THRESHOLD
from parity.judging.replays import Replays
from parity.judging.step import Judge
from parity.mutations.score import Enacted
from parity.quantities import GRADIENTS
from parity.replay import Replay, exact_for
from parity.semantics import SWITCHES
from tests.parity.judging.step_test import record

NUMBER = 2
FLAGS = {
    "smooth": ["--activation=tanh"],
    "kinked": ["--normalization=batch", "--accumulation_steps=2"],
}
SHOWN = 8
"""Causes that show in either, at least."""


class Bench:
    """A clean recording, and what each cause makes of one of its steps.

    Made without the rounding of FP16, so that its distance from a replay is that of
    another stack.
    """

    def __init__(self, folder, flags):
        self.experiment, data, self.trace = record(
            folder,
            "breast_cancer",
            "--initial_scale_power=8",
            "--batch_size=400",
            *flags,
        )
        self.replays = Replays(self.experiment, data)
        self.clean = Judge(self.replays, self.trace, None, THRESHOLD)
        self.causes = [
            switch
            for switch in SWITCHES.values()
            if switch.parts == (GRADIENTS,) and switch.applies(self.experiment)
        ]
        self.judge = functools.cache(self._judge)

    def _judge(self, cause):
        def rounding_otherwise(replay, inputs, dtype):
            return exactly(replay, inputs, exact_for(replay.compute))

        exactly = Replay.gradients
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Replay, "gradients", rounding_otherwise)
            enacted = self.clean.enacted(NUMBER, (SWITCHES[cause],))
        step = Enacted(self.trace, NUMBER, enacted)
        return Judge(self.replays, step, None, THRESHOLD)

    def guesses(self, cause):
        return Guesses(self.judge(cause), NUMBER, self.replays, THRESHOLD)

    def shows(self, cause):
        return not passes(self.judge(cause).judged(GRADIENTS, NUMBER))


def passes(measurements):
    return all(m.z <= THRESHOLD for m in measurements)


@pytest.fixture(scope="module", params=FLAGS)
def bench(request, tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("run"), FLAGS[request.param])


def test_no_true_cause_is_ruled_out(bench):
    shown = [cause for cause in bench.causes if bench.shows(cause.name)]
    assert len(shown) >= SHOWN
    for cause in shown:
        measured = bench.guesses(cause.name).measure(GRADIENTS, NUMBER, (cause,))
        assert passes(measured), cause.name


def test_what_is_ruled_out_would_fail(bench):
    planted = "loss_summed"
    guesses, judge = bench.guesses(planted), bench.judge(planted)
    without = judge.judged(GRADIENTS, NUMBER)
    ruled_out = [
        cause
        for cause in bench.causes
        if guesses._ruled_out(without, (cause,)) is not None
    ]
    assert len(ruled_out) > len(bench.causes) / 2
    for cause in ruled_out:
        assert not passes(judge.part(GRADIENTS, NUMBER, (cause,))), cause.name

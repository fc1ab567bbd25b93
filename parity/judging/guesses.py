"""Measures a diverging step under guesses at the cause, each with the least work.

Three rungs: the layers' outputs and the loss, by a program that is compiled in a hurry;
the gradients as well; the noise of it all. Most guesses move what agrees already, and
fall at the first. In transformer_text the first takes a second, all three ten.
"""

import functools
from collections.abc import Callable, Sequence

from parity.judging.coarser import is_hopeless
from parity.judging.diagnose import diagnose
from parity.judging.estimate import Estimate
from parity.judging.explanation import Explanation
from parity.judging.measure import Measurement
from parity.judging.replays import Replays, Switches
from parity.judging.rounds import WORTH_A_CLOSE_LOOK
from parity.judging.step import Judge
from parity.judging.tensors import FORWARD
from parity.quantities import GRADIENTS, QUANTITIES

SMOOTH = (*FORWARD, "batch_stats")
"""What a forward pass leaves: a kink moves none of it by more than rounding."""
WORSE = 0.9
"""What still fails by more than this share of the worst z without the guess is not
worth a close look: it takes 64 draws, and the guess will not explain."""


def explain(
    judge: Judge,
    failed: Measurement,
    steps: int,
    replays: Replays,
    threshold: float,
    note: Callable[[str], None] = print,
) -> list[Explanation]:
    """Returns what explains a diverging step, best first.

    Args:
      judge: judge of the recording.
      failed: first measurement of the diverging step that failed.
      steps: number of steps in the recording.
      replays: replays of the experiment.
      threshold: largest z that passes.
      note: takes a line on each switch that could not be tried.
    """
    guesses = Guesses(judge, failed.step, replays, threshold)
    return diagnose(
        guesses.measure,
        range(failed.step, steps),
        replays.experiment,
        threshold,
        note=note,
        first=failed,
    )


class Guesses:
    """The measurements of a diverging step under guesses, and of those that follow.

    Args:
      judge: judge of the recording.
      number: index of the diverging step.
      replays: replays of the experiment.
      threshold: largest z that passes.
    """

    def __init__(self, judge: Judge, number: int, replays: Replays, threshold: float):
        self._judge = judge
        self._number = number
        self._threshold = threshold
        self._decisive = _decisive(replays)
        # By the programs that round as a guess's.
        self._plain = functools.cache(lambda half: judge.glance_without(number, half))

    def measure(
        self, part: str, step: int, switches: Switches
    ) -> Sequence[Measurement]:
        """Returns the measurements of one part of a step; see `diagnose.Measure`.

        What is ruled out at a glance is measured in the units of the step without it.
        """
        without = self._judge.judged(part, step)
        if not switches:
            return without
        # What has explained this step is asked about the following ones in full.
        if part == GRADIENTS and step == self._number:
            ruled_out = self._ruled_out(without, switches)
            if ruled_out is not None:
                return ruled_out
        worst = max((m.z for m in without), default=0.0)
        close_below = min(WORTH_A_CLOSE_LOOK, WORSE * worst)
        return self._judge.part(part, step, switches, close_below)

    def _ruled_out(
        self, without: Sequence[Measurement], switches: Switches
    ) -> Sequence[Measurement] | None:
        """Returns the measurements of a guess that cannot explain; None if it may."""
        if self._decisive and any(switch.changes_program for switch in switches):
            forward = self._estimate(without, switches, forward_only=True)
            # A guess about the gradients alone is told by the gradients.
            if self._rules_out(forward) and not forward.is_inert:
                return forward.measurements
        whole = self._estimate(without, switches, forward_only=False)
        # Measured as what it is without, it is no explanation and no part of one.
        if is_hopeless(whole.without, whole.plain, whole.glanced, self._threshold):
            return without
        return whole.measurements if self._rules_out(whole) else None

    def _rules_out(self, estimate: Estimate) -> bool:
        return estimate.rules_out(self._decisive, self._threshold)

    def _estimate(
        self, without: Sequence[Measurement], switches: Switches, forward_only: bool
    ) -> Estimate:
        plain, times_larger = self._plain(forward_only)
        glanced = self._judge.glance(self._number, switches, forward_only)
        return Estimate(without, plain, glanced, times_larger)


def _decisive(replays: Replays) -> tuple[str, ...]:
    """Returns the quantities that no kink or jump of the network moves."""
    replay = replays.under(())
    if replay.has_jumps:
        return ()
    return SMOOTH if replay.has_kinks else tuple(QUANTITIES)

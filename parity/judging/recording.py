"""Judges one whole recording: every step, the verdict, and on divergence the cause."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.files import batch_summary
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.results.time_left import watched
from parity.judging.batch import explain_batch
from parity.judging.explanation import Explanation, sentence
from parity.judging.guesses import explain
from parity.judging.measure import Measurement
from parity.judging.optimizer_difference import Found
from parity.judging.optimizer_difference import explain as explain_differences
from parity.judging.replayed_optimizer import beside_the_replay
from parity.judging.replays import Replays
from parity.judging.rounds import THOROUGH, close_below
from parity.judging.step import Judge, order
from parity.judging.summing import lost_by_summing
from parity.judging.third_opinion import Vote
from parity.judging.verdict import Verdict, judge_measurements

MEASURED = "measured, the replay being yours"


class Judgement(NamedTuple):
    """What was found of one recording.

    Attributes:
      measurements: measurements of every step.
      verdict: the verdict that they amount to.
      order: names of layers and gradients in the order in which a step computes them.
      explanations: what explains the first diverging step, best first; None if nothing
        was looked for, as at parity.
      vote: the oracle's opinion on the first tensor that failed; None at parity, and
        for an equality.
      notes: what could not be tried or asked, a line each.
      found: how the recorded optimizer differs from that of the replay; None where no
        update failed.
      lost: at parity, what the sum over microbatches loses; empty if little.
    """

    measurements: list[Measurement]
    verdict: Verdict
    order: list[str]
    explanations: list[Explanation] | None = None
    vote: Vote | None = None
    found: Found | None = None
    notes: Sequence[str] = ()
    lost: str = ""

    def as_json(self) -> dict[str, Any]:
        """Returns what verdict.json holds of a recording."""
        return self.verdict.as_json() | {
            "diagnosis": [e.as_json() for e in self.explanations or ()],
            "oracle": self.vote and self.vote._asdict(),
            "measured": self.measured,
            "notes": list(self.notes),
            "lost": self.lost,
        }

    def sentences(self, stack: str) -> list[str]:
        """Returns what is to be said besides the verdict, a line each."""
        if self.verdict.is_parity:
            return [f"note: {self.lost}"] if self.lost else []
        opinion = [self.vote.sentence(stack)] if self.vote else []
        notes = [f"note: {note}" for note in self.notes]
        return [sentence(self.explanations or ()), *self.figures, *opinion, *notes]

    @property
    def measured(self) -> str:
        """The figures of what was found; empty where nothing can be measured."""
        return self.found.figures if self.found else ""

    @property
    def figures(self) -> list[str]:
        """The measured line, unless the explanation has said it."""
        is_said = any(known.is_measured for known in self.explanations or ())
        return [f"{MEASURED}: {self.measured}"] if self.measured and not is_said else []


def judge_recording(
    replays: Replays,
    trace: Reader,
    initial: Mapping[str, np.ndarray] | None,
    threshold: float,
    rounds: Sequence[int] = THOROUGH,
    must_learn: bool = True,
) -> Judgement:
    """Judges every step of a recording, from `trace.first` on.

    Args:
      replays: replays of the experiment that was recorded.
      trace: the recording.
      initial: flat parameters that the run was given; None if not known.
      threshold: largest z that passes.
      rounds: numbers of draws to measure with; see `rounds.Rounds`.
      must_learn: as of `judge_measurements`.

    Raises:
      UserError: nothing was measured, or nothing was learned.
    """
    judge = Judge(replays, trace, initial, threshold, rounds)
    numbers = range(trace.first, len(trace))
    measurements: list[Measurement] = []
    for number in watched("judging step", numbers):
        measurements += judge.step(number, close_below(measurements, threshold))
    made_in = order(trace)
    verdict = judge_measurements(
        measurements, len(numbers), threshold, made_in, must_learn
    )
    failed = verdict.first_divergence
    if failed is None:
        lost = lost_by_summing(replays, trace, numbers)
        return Judgement(measurements, verdict, made_in, lost=lost)
    notes: list[str] = []
    if failed.quantity in batch_summary.KINDS:
        # No switch changes the data, so none could explain the step.
        explanations = explain_batch(failed)
        return Judgement(measurements, verdict, made_in, explanations)
    explanations = explain(judge, failed, len(trace), replays, threshold, notes.append)
    wrong = [m for m in measurements if m.z > threshold]
    found = beside_the_replay(replays, trace, wrong)
    if found and not any(known.explains for known in explanations):
        explanations = explain_differences(found, wrong) or explanations
    return Judgement(
        measurements,
        verdict,
        made_in,
        explanations,
        opinion_on(judge, failed, notes.append),
        found,
        notes,
    )


def opinion_on(
    judge: Judge, failed: Measurement, note: Callable[[str], None]
) -> Vote | None:
    """Returns the oracle's opinion on what failed.

    The oracle is a program of its own: where it fails, the verdict stands without it.
    """
    try:
        return judge.vote(failed)
    except Exception as error:
        note(f"the oracle could not be asked: {error or type(error).__name__}")
        return None

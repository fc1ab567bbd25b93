"""The whole judgement of one recording: every measurement, the verdict, and on
divergence why and who is right."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.files.trace import Reader
from parity.judging import diagnose, measure
from parity.judging.diagnose import Explanation
from parity.judging.measure import Measurement
from parity.judging.step import THOROUGH, Judge, Replays, order
from parity.judging.third_opinion import Vote
from parity.semantics.switch import Switch

WORTH_A_CLOSE_LOOK, WORSE = 1000.0, 0.9
"""Under a switch, what still fails by more than this z, or by more than this share of
what it is without the switch, is not measured again with more draws."""


class Judgement(NamedTuple):
    """What was found of one recording.

    Attributes:
      measurements: of every step.
      verdict: as `compare.verdict` returns it.
      explanations: of the first diverging step, the best first; empty at parity.
      vote: of the oracle on the first tensor that failed; None at parity, and for what
        is an equality.
    """

    measurements: list[Measurement]
    verdict: dict[str, Any]
    explanations: list[Explanation]
    vote: Vote | None

    def as_json(self) -> dict[str, Any]:
        """What verdict.json holds of a recording."""
        return self.verdict | {
            "diagnosis": diagnose.as_json(self.explanations),
            "oracle": self.vote and self.vote._asdict(),
        }

    def with_vote(self, stack: str) -> dict[str, Any]:
        """The verdict, the oracle's opinion beside the first divergence."""
        if not self.vote:
            return self.verdict
        return self.verdict | {
            "first_divergence": {
                **self.verdict["first_divergence"],
                "third_opinion": self.vote.sentence(stack),
            }
        }

    def sentences(self, stack: str) -> list[str]:
        """What is to be said of a divergence, a line each."""
        if not self.verdict["first_divergence"]:
            return []
        return [
            diagnose.sentence(self.explanations),
            *([self.vote.sentence(stack)] if self.vote else []),
        ]


def judge_recording(
    replays: Replays,
    trace: Reader,
    initial: Mapping[str, np.ndarray] | None,
    threshold: float,
    rounds: Sequence[int] = THOROUGH,
) -> Judgement:
    """Judges every step of a recording, from `trace.first` on.

    Args:
      replays: of the experiment that was recorded.
      trace: the recording.
      initial: the flat parameters that the run was given; None: not known.
      threshold: largest z that passes.
      rounds: draws of noise to measure with; see `judge.Judge`.
    """
    judge = Judge(replays, trace, initial, threshold, rounds)
    measurements = [
        m for number in range(trace.first, len(trace)) for m in judge.step(number)
    ]
    verdict = measure.verdict(
        measurements, len(trace) - trace.first, threshold, order(trace)
    )
    failed = measure.first_failed(measurements, threshold, order(trace))
    if failed is None:
        return Judgement(measurements, verdict, [], None)
    return Judgement(
        measurements,
        verdict,
        explain(judge, failed.step, len(trace), replays, threshold),
        judge.vote(failed),
    )


def explain(
    judge: Judge, number: int, steps: int, replays: Replays, threshold: float
) -> list[Explanation]:
    """What explains a diverging step, the best first.

    Args:
      judge: of the recording.
      number: of the step.
      steps: in the recording.
      replays: of the experiment.
      threshold: largest z that passes.
    """

    @functools.cache
    def without(part: str, step: int) -> Sequence[Measurement]:
        return judge.part(part, step, (), WORTH_A_CLOSE_LOOK)

    def measure(
        part: str, step: int, switches: tuple[Switch, ...]
    ) -> Sequence[Measurement]:
        if not switches:
            return without(part, step)
        worst = max((m.z for m in without(part, step)), default=0.0)
        return judge.part(part, step, switches, min(WORTH_A_CLOSE_LOOK, WORSE * worst))

    return diagnose.diagnose(
        measure, range(steps)[number:][: diagnose.STEPS], replays.experiment, threshold
    )

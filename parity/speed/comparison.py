"""What the results say side by side: ratios to jaxnn, and the best PyTorch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.flags.config import Experiment
from parity.speed.competitors import BEST, EAGER, JAXNN
from parity.speed.measuring import Result

FIELDS = ("wall", "training", "memory")
"""Of a run; less is better."""


class Machine(NamedTuple):
    """Work of a step and speed of this machine, as `roofline` prints them.

    Attributes:
      step: FLOPs of forward and backward pass of a full batch; 0: not known.
      peak: FLOP/s of the fastest product of matrices; 0: not known.
    """

    step: float = 0.0
    peak: float = 0.0

    def share(self, result: Result) -> float | None:
        """Returns the share of the peak that a competitor's training reached.

        Evaluation takes its time and is not among the FLOPs.
        """
        if not result.runs or not self.peak or not self.step:
            return None
        flops = self.step * result.runs[0].steps
        return flops / result.median("training") / self.peak


def find(
    results: Sequence[Result], kind: str, field: str = "training"
) -> Result | None:
    """Returns the competitor of a kind with the least median, or None."""
    of_kind = [r for r in results if r.competitor.kind == kind and r.runs]
    return min(of_kind, key=lambda result: result.median(field), default=None)


def best_torch(results: Sequence[Result], field: str) -> Result | None:
    """Returns the plain PyTorch with the least median of a field, or None.

    The tutorial's loop counts too: it may start up or hold less than the fast ones.
    """
    found = [find(results, kind, field) for kind in (BEST, EAGER)]
    there = [result for result in found if result]
    return min(there, key=lambda result: result.median(field), default=None)


def ratio(results: Sequence[Result], other: Result | None, field: str) -> float | None:
    """Returns a competitor's median over jaxnn's: above 1, jaxnn needs less."""
    ours = find(results, JAXNN)
    if not ours or not other:
        return None
    return other.median(field) / ours.median(field)


def as_json(
    experiment: Experiment, rounds: int, machine: Machine, results: Sequence[Result]
) -> dict[str, Any]:
    """Returns the contents of speed.json.

    Seconds, bytes, FLOPs and FLOP/s; a ratio is the other's median over jaxnn's.
    """
    best = {field: best_torch(results, field) for field in FIELDS}
    return {
        "format": 1,
        "experiment": experiment.name,
        "precision": experiment.precision,
        "rounds": rounds,
        "flops_per_step": machine.step,
        "peak_flops_per_second": machine.peak,
        "competitors": [_entry(results, machine, result) for result in results],
        "best_pytorch": {
            field: {
                "label": result.competitor.label,
                "ratio": ratio(results, result, field),
            }
            for field, result in best.items()
            if result
        },
    }


def _entry(
    results: Sequence[Result], machine: Machine, result: Result
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "label": result.competitor.label,
        "kind": result.competitor.kind,
        "failure": result.failure,
        "runs": [run._asdict() for run in result.runs],
    }
    if not result.runs:
        return entry
    fields = (*FIELDS, "throughput", "test_loss")
    return entry | {
        "medians": {field: result.median(field) for field in fields},
        "ratios": {field: ratio(results, result, field) for field in FIELDS},
        "share_of_peak": machine.share(result),
    }

"""The workloads of the benchmark, their goals, and what was reached of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.data.samples import MEBIBYTE
from parity.speed.competitors import DEEPSPEED, EAGER, JAXNN

Report = Mapping[str, Any]
"""Contents of a speed.json."""


class Workload(NamedTuple):
    """One row of the benchmark.

    Attributes:
      name: "W1" and so on.
      text: what it is.
      flagfile: its experiment.
      flags: flags beside the flagfile's.
      ahead: goal, best PyTorch's training time over jaxnn's.
      cold_ahead: goal, the same of whole processes; 0: none.
      cold_seconds: goal, most seconds of jaxnn's whole process; 0: none.
    """

    name: str
    text: str
    flagfile: str
    flags: tuple[str, ...]
    ahead: float
    cold_ahead: float = 0.0
    cold_seconds: float = 0.0


class Goal(NamedTuple):
    """A goal and what was reached.

    Attributes:
      what: what was compared.
      ours: jaxnn's figure, as text.
      theirs: the other's, as text; "" where the goal is a number.
      reached: ratio or seconds; None: not measured.
      bound: what it should be at least, or at most.
      at_least: True if more is better.
    """

    what: str
    ours: str
    theirs: str
    reached: float | None
    bound: float
    at_least: bool

    @property
    def is_met(self) -> bool:
        """True if it was measured and is on its good side."""
        if self.reached is None:
            return False
        if self.at_least:
            return self.reached >= self.bound
        return self.reached <= self.bound


WORKLOADS = (
    Workload(
        "W1",
        "linear regression, 3,200 samples, 30 epochs",
        "launch/experiments/linear_regression.flags",
        ("--num_samples=3200",),
        ahead=100,
        cold_seconds=0.8,
    ),
    Workload(
        "W2",
        "breast cancer, 100 epochs",
        "launch/experiments/breast_cancer.flags",
        (),
        ahead=9,
        cold_seconds=1.0,
    ),
    Workload("W3", "MLP 784-256-128-10", "launch/benchmark/mlp.flags", (), ahead=1.6),
    Workload(
        "W4", "CNN on 32x32x3 images", "launch/benchmark/cnn.flags", (), ahead=1.05
    ),
    Workload("W5", "LSTM 128, 64 steps", "launch/benchmark/lstm.flags", (), ahead=1.1),
    Workload(
        "W6",
        "Transformer 2 x 128, 128 steps",
        "launch/benchmark/transformer.flags",
        (),
        ahead=1.05,
        cold_ahead=1.3,
    ),
)
RATES = Workload(
    "W7",
    "16 learning rates of breast cancer at once",
    "launch/experiments/breast_cancer.flags",
    (),
    ahead=10,
)
"""Measured by `parity.speed.rates`."""
BATCHED, SEQUENTIAL = "batched", "sequential"
RATES_AHEAD = {BATCHED: RATES.ahead, SEQUENTIAL: 40}
"""What PyTorch is asked to do -> goal, its training time over jaxnn.sweep's."""
MOST_MEMORY = 1.0
"""Goal: jaxnn's peak memory over that of PyTorch's tutorial loop."""


def rows(measured: Sequence[tuple[Workload, Report]]) -> Iterator[str]:
    """Yields the Markdown lines: training and its goals, then start-up and memory."""
    yield (
        "| workload | jaxnn | DeepSpeed | eager PyTorch | best PyTorch | PyTorch / "
        "jaxnn | goal | reached | of peak |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    trained = [pair for pair in measured if pair[0] != RATES]
    for workload, report in trained:
        yield _training(workload, report)
    yield ""
    for workload, report in measured:
        if workload == RATES:
            yield from _rates(report)
    yield "| whole process, memory | jaxnn | PyTorch | figure | goal | reached |"
    yield "|---|---|---|---|---|---|"
    for workload, report in trained:
        for goal in [*cold(workload, report), memory(workload, report)]:
            yield _row(goal)


def training(workload: Workload, report: Report) -> Goal:
    """Returns the goal of a workload's training time."""
    best = report["best_pytorch"].get("training", {})
    theirs = _best_text(report, "training", "s")
    ours = _text(_median(report, JAXNN, "training"), "s")
    return Goal(
        workload.name, ours, theirs, best.get("ratio"), workload.ahead, at_least=True
    )


def cold(workload: Workload, report: Report) -> Iterator[Goal]:
    """Yields the goals of a workload's whole process."""
    best = report["best_pytorch"].get("wall", {})
    seconds = _median(report, JAXNN, "wall")
    ours, theirs = _text(seconds, "s"), _best_text(report, "wall", "s")
    what = f"{workload.name} whole process"
    if workload.cold_seconds:
        yield Goal(what, ours, theirs, seconds, workload.cold_seconds, at_least=False)
    if workload.cold_ahead:
        ratio = best.get("ratio")
        yield Goal(what, ours, theirs, ratio, workload.cold_ahead, at_least=True)


def memory(workload: Workload, report: Report) -> Goal:
    """Returns the goal of a workload's peak memory, against the tutorial's loop."""
    ours, theirs = (_median(report, kind, "memory") for kind in (JAXNN, EAGER))
    ratio = ours / theirs if ours and theirs else None
    mine, other = (_text(x and x / MEBIBYTE, "MiB") for x in (ours, theirs))
    what = f"{workload.name} memory"
    return Goal(what, mine, other, ratio, MOST_MEMORY, at_least=False)


def _training(workload: Workload, report: Report) -> str:
    goal = training(workload, report)
    others = [
        _text(_median(report, kind, "training"), "s") for kind in (DEEPSPEED, EAGER)
    ]
    share = _entry(report, JAXNN).get("share_of_peak")
    peak = "" if share is None else f"{share:.0%}"
    cells = (goal.ours, *others, goal.theirs, *_reached(goal), peak)
    return f"| {workload.name} {workload.text} | {' | '.join(cells)} |"


def rates(report: Report) -> Iterator[Goal]:
    """Yields the goals of many learning rates at once, of a speed.json of `rates`."""
    ours = _text(report[JAXNN], "s")
    for kind, bound in RATES_AHEAD.items():
        best = report.get(kind, {})
        theirs = f"{_text(best.get('seconds'), 's')} ({best.get('label', 'none')})"
        what = f"{RATES.name} {RATES.text}, {kind} PyTorch"
        yield Goal(what, ours, theirs, best.get("ratio"), bound, at_least=True)


def _rates(report: Report) -> Iterator[str]:
    yield "| sweep | jaxnn | PyTorch | PyTorch / jaxnn | goal | reached |"
    yield "|---|---|---|---|---|---|"
    for goal in rates(report):
        yield _row(goal)
    yield ""


def _row(goal: Goal) -> str:
    cells = (goal.what, goal.ours, goal.theirs, *_reached(goal))
    return f"| {' | '.join(cells)} |"


def _reached(goal: Goal) -> tuple[str, str, str]:
    """Returns figure, goal and whether it is reached, as texts."""
    figure = "" if goal.reached is None else f"{goal.reached:.3g}"
    bound = f"{'>=' if goal.at_least else '<='} {goal.bound:g}"
    if goal.reached is None:
        return figure, bound, "not measured"
    return figure, bound, "yes" if goal.is_met else "**no**"


def _entry(report: Report, kind: str) -> Report:
    """Returns the first competitor of a kind, or nothing."""
    return next((c for c in report["competitors"] if c["kind"] == kind), {})


def _median(report: Report, kind: str, field: str) -> float | None:
    return _entry(report, kind).get("medians", {}).get(field)


def _best_text(report: Report, field: str, unit: str) -> str:
    """Returns the figure of the best PyTorch and who that was."""
    best = report["best_pytorch"].get(field)
    if not best:
        return ""
    entries = [c for c in report["competitors"] if c["label"] == best["label"]]
    return f"{_text(entries[0]['medians'][field], unit)} ({best['label']})"


def _text(value: float | None, unit: str) -> str:
    return "failed" if value is None else f"{value:.3g} {unit}"

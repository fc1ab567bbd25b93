"""The results as a table, and what they come to in two lines."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from jaxnn.experiment.data.samples import MEBIBYTE
from parity.speed.comparison import Machine, best_torch, ratio
from parity.speed.competitors import BEST
from parity.speed.measuring import Result

HEADERS = (
    "process s",
    "training s",
    "samples/s",
    "MiB",
    "of peak",
    "test loss",
    "/ jaxnn",
)
SUMMED_UP = {"training": "training", "wall": "whole process", "memory": "memory"}


def print_table(
    title: str, results: Sequence[Result], machine: Machine, console: Console
) -> None:
    """Prints a row for each competitor, then the best PyTorch against jaxnn.

    Columns: seconds of the whole process and of training, throughput, peak memory,
    share of the machine's peak, loss, and training time over jaxnn's.

    Args:
      title: what was measured.
      results: one for each competitor; a row says why one failed.
      machine: for the share of the peak.
      console: where to print.
    """
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("competitor", no_wrap=True)
    for header in HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    for result in results:
        if result.runs:
            table.add_row(label(result, results), *cells(result, results, machine))
        else:
            table.add_row(label(result, results), "failed")
    console.print(table)
    for line in (*failures(results), *sentences(results)):
        console.out(line, highlight=False)


def label(result: Result, results: Sequence[Result]) -> str:
    """Returns a competitor's name; the best PyTorch is marked."""
    mark = " (best)" if result is best_torch(results, "training") else ""
    prefix = "PyTorch: " if result.competitor.kind == BEST else ""
    return f"{prefix}{result.competitor.label}{mark}"


def cells(
    result: Result, results: Sequence[Result], machine: Machine
) -> tuple[str, ...]:
    """Returns a row: medians over the rounds, and the ratio to jaxnn's training."""
    share = machine.share(result)
    times = ratio(results, result, "training")
    return (
        f"{result.median('wall'):.2f}",
        seconds(result.median("training")),
        f"{result.median('throughput'):,.0f}",
        f"{result.median('memory') / MEBIBYTE:,.0f}",
        "" if share is None else f"{share:.1%}",
        f"{result.median('test_loss'):.4g}",
        "" if times is None else f"{times:.2f}",
    )


def failures(results: Sequence[Result]) -> Iterator[str]:
    """Yields a line for each competitor that failed."""
    for result in results:
        if result.failure:
            yield f"{result.competitor.label} failed: {result.failure}"


def sentences(results: Sequence[Result]) -> Iterator[str]:
    """Yields the ratios of the best PyTorch to jaxnn, each with who was best."""
    for field, name in SUMMED_UP.items():
        best = best_torch(results, field)
        times = ratio(results, best, field)
        if best and times is not None:
            who = best.competitor.label
            yield f"{name}: PyTorch / jaxnn {times:.2f} ({who})"


def seconds(value: float) -> str:
    """Returns seconds with three digits: 0.0142, 1.65, 23.3."""
    return f"{value:.3g}"

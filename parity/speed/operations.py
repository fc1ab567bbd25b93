"""Where jaxnn.train spends its time, by kind of XLA operation.

    python -m parity.speed.operations --flagfile=launch/benchmark/lstm.flags

Trains once to fill the caches and once under JAX's profiler. Shares are of the time in
which at least one core computed, on all cores that did. For CPUs; on accelerators use
jax.profiler and its viewer.
"""

import pathlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
from jax.profiler import ProfileData
from rich.table import Table

from jaxnn import train
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console

THREADS = "tf_XLA"
"""Threads of XLA begin so."""
WRAPPERS = ("ThunkExecutor::Execute (wait", "end: ", "ThreadpoolListener", "[")
"""Events beside the operations' own, on the same threads."""
MOVES = (
    "wrapped|bitcast|broadcast|copy|transpose|concatenate|pad|slice|gather|reverse|"
    "dynamic-slice|dynamic-update-slice|fusion"
)
"""XLA names a fusion after what it does, joined by "_"."""
KINDS = {
    "products of matrices": r"ynn_fusion|dot|convolution|__ffi|custom-call",
    "sums over devices, and waiting": r"psum|all-reduce|Rendezvous|Wait|Await",
    "copies, transposes": rf"(({MOVES})[_.\d]*)+$",
    "starting operations": r"while|ThunkExecutor|call|conditional|Common|Handle",
}
"""Kind -> how names of its events begin; the first that fits counts."""
OTHER = "arithmetic by entry"


class Event(NamedTuple):
    """Something that a thread did, in nanoseconds."""

    name: str
    start: float
    duration: float

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.duration


class Shares(NamedTuple):
    """Shares of the time of all threads that computed.

    Attributes:
      threads: their number.
      seconds: in which at least one of them did.
      kinds: kind -> share.
    """

    threads: int
    seconds: float
    kinds: dict[str, float]


def main(experiment: Experiment) -> None:
    """Trains twice, and prints the shares of the second run."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        alone = experiment.replace(plots=False, workdir=str(root / "run"))
        train.program(alone)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with jax.profiler.trace(str(root / "trace"), profiler_options=options):
            train.main(alone.replace(overwrite=True))
        threads = list(read(next((root / "trace").rglob("*.xplane.pb"))))
    print_shares(shares(threads))


def read(path: pathlib.Path) -> Iterator[list[Event]]:
    """Yields the events of each thread of XLA in a profile."""
    for plane in ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            if line.name.startswith(THREADS):
                yield [
                    Event(each.name, each.start_ns, each.duration_ns)
                    for each in line.events
                    if not each.name.startswith(WRAPPERS)
                ]


def shares(threads: Iterable[list[Event]]) -> Shares:
    """Returns what shares of the time the kinds of operations took.

    Threads that computed less than a tenth of what the busiest did only help: their
    time counts, but nobody waits for them.
    """
    busy = [sum(own for _, own in own_times(events)) for events in threads]
    wall = covered(event for each in threads for event in each)
    computed = sum(time > max(busy) / 10 for time in busy)
    kinds: dict[str, float] = defaultdict(float)
    for each in threads:
        for name, own in own_times(each):
            kinds[kind_of(name)] += own / (wall * computed)
    return Shares(computed, wall * 1e-9, dict(kinds))


def covered(events: Iterable[Event]) -> float:
    """Returns how long at least one of some events was going on."""
    total, reached = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e.start):
        total += max(0.0, event.end - max(event.start, reached))
        reached = max(reached, event.end)
    return total


def own_times(events: Iterable[Event]) -> Iterator[tuple[str, float]]:
    """Yields name and time of each event of a thread, without the events within it."""
    open_events: list[Event] = []
    within: list[float] = []
    for event in [*sorted(events, key=lambda e: (e.start, -e.end)), None]:
        while open_events and (event is None or open_events[-1].end <= event.start):
            done = open_events.pop()
            yield done.name, done.duration - within.pop()
        if event is None:
            return
        if open_events:
            within[-1] += event.duration
        open_events.append(event)
        within.append(0.0)


def kind_of(name: str) -> str:
    """Returns the kind of an operation, by its name in XLA's program."""
    for kind, beginning in KINDS.items():
        if re.match(beginning, name):
            return kind
    return OTHER


def print_shares(found: Shares) -> None:
    """Prints a row for each kind, and what is left."""
    table = Table(title=f"{found.seconds:.3g} s on {found.threads} threads")
    table.add_column("operations")
    table.add_column("share", justify="right")
    for kind, share in sorted(found.kinds.items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{share:.0%}")
    if found.threads > 1:
        table.add_row("none: another thread is ahead", f"{left(found):.0%}")
    table_console().print(table)


def left(found: Shares) -> float:
    """Returns the share in which a core did nothing while another computed."""
    return 1 - sum(found.kinds.values())


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp32")

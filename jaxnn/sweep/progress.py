"""How far a sweep is: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping, Sequence

from jaxnn.experiment.results import time_left
from jaxnn.experiment.results.progress import PLAIN_LINES
from jaxnn.sweep import axes
from jaxnn.sweep.members import Member
from jaxnn.sweep.records import Record


class SweepProgress:
    """Shows epochs of all members as they end, the best member and the time left.

    Args:
      total: epochs of all members together.
    """

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        # Epochs found done by a resumed sweep took no time.
        self._found = 0
        self._lines = 0
        self._begin = time.monotonic()
        self._best = math.inf
        self._text = ""
        self._bar = _bar(total) if sys.stdout.isatty() else None

    def __enter__(self) -> "SweepProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(
        self,
        epochs: int,
        members: Sequence[Member] = (),
        records: Mapping[int, Record] | None = None,
    ) -> None:
        """Counts epochs, and shows them if they were trained.

        Args:
          epochs: that have ended, of all members.
          members: who trained them; none if they were found done.
          records: member's number -> its record.
        """
        self._done += epochs
        if not members:
            self._found += epochs
        for member in members:
            self._consider(member, (records or {})[member.number])
        if self._bar:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._done, best=self._text)
        elif members and self._done * PLAIN_LINES >= self._lines * self._total:
            self._lines = self._done * PLAIN_LINES // self._total + 1
            # Flushed, because a pipe or a log file is buffered.
            print(self._line(), flush=True)

    def _consider(self, member: Member, record: Record) -> None:
        if record.rows and record.score < self._best:
            self._best = record.score
            name = record.judged_by.replace("_", " ")
            value = record.sign * self._best
            self._text = f"best {name} {value:.4g} ({axes.spell(member.settings)})"

    def _line(self) -> str:
        trained = self._done - self._found
        seconds = time.monotonic() - self._begin
        left = seconds / max(trained, 1) * (self._total - self._done)
        share = self._done / max(self._total, 1)
        return f"{share:4.0%}  {time_left.text(left)} left  {self._text}"


def _bar(total: int):
    # Imported only where a terminal shows it.
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("sweep"),
        progress.BarColumn(20),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[best]}"),
    )
    bar.add_task("", total=total, best="")
    return bar

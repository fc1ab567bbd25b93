"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping

# Lines that a run prints where there is no terminal.
PLAIN_LINES = 10

# How the columns begin that are shown.
SHOWN = ("train_", "test_", "weight", "bias")


class ProgressBar:
    """Shows epochs as they end.

    Args:
      epochs: number of epochs in the run; 0: show nothing.
    """

    def __init__(self, epochs: int):
        self._epochs = epochs
        self._every = -(-epochs // PLAIN_LINES)
        self._bar = _bar(epochs) if epochs and sys.stdout.isatty() else None

    def show(self, row: Mapping[str, float]) -> None:
        """Shows one row of metrics.csv."""
        epoch = row["epoch"]
        if self._bar:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=epoch, numbers=_numbers(row))
        elif epoch % self._every == 0 or epoch == self._epochs:
            # Flushed, because a pipe or a log file is buffered.
            print(f"epoch {epoch}/{self._epochs}  {_numbers(row)}", flush=True)

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_):
        if self._bar:
            self._bar.stop()


def _numbers(row: Mapping[str, float]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" for name, value in row.items() if name.startswith(SHOWN)
    )


def _bar(epochs: int):
    # Imported only where a terminal shows it.
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("epoch"),
        progress.MofNCompleteColumn(),
        progress.BarColumn(8),
        progress.TextColumn("{task.fields[numbers]}"),
    )
    bar.add_task("", total=epochs, numbers="")
    return bar

"""Trackers: a run's metrics once an epoch, and its pictures, for TensorBoard and for
Weights & Biases.

A tracker is never why training ends: what it cannot do is said in one line, once.
"""

import contextlib
import dataclasses
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from jaxnn.experiment.flags.config import Experiment

FOLDER = "tensorboard"
PROJECT = "jaxnn"
INSTALL = "python -m pip install -c launch/constraints.txt"


class Tracker(Protocol):
    """Where the numbers of a run go."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of an epoch, counted from 1."""
        ...

    def image(self, number: int, name: str, path: pathlib.Path) -> None:
        """Takes a picture of the run after an epoch."""
        ...

    def close(self, status: int) -> None:
        """Ends the run; status 0 if it ended well."""
        ...


class TensorBoard:
    """Event files in a run directory, without TensorFlow.

    Args:
      experiment: what is trained.
      workdir: run directory, which gets tensorboard/.
      after: epochs done before a resumed run; what an earlier one wrote of later epochs
        no longer counts.
    """

    def __init__(self, experiment: Experiment, workdir: pathlib.Path, after: int):
        package: Any = importlib.import_module("tensorboardX")
        self._writer = package.SummaryWriter(
            str(workdir / FOLDER), purge_step=after + 1 if after else None
        )

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        # A run is looked at while it trains.
        self._writer.flush()

    def image(self, number: int, name: str, path: pathlib.Path) -> None:
        """See `Tracker`."""
        from matplotlib import image

        self._writer.add_image(name, image.imread(path), number, dataformats="HWC")

    def close(self, status: int) -> None:
        """See `Tracker`."""
        del status
        self._writer.close()


class WandB:
    """A run of Weights & Biases: online with a key, else offline in a run directory.

    Args:
      experiment: what is trained; its flags are the run's configuration.
      workdir: run directory, which gets wandb/; its name is the run's.
      after: epochs done before a resumed run.
    """

    def __init__(self, experiment: Experiment, workdir: pathlib.Path, after: int):
        wandb: Any = importlib.import_module("wandb")
        del after
        self._wandb = wandb
        mode: Any = os.environ.get("WANDB_MODE")
        if not mode and wandb.api.api_key:
            mode = "online"
        elif not mode:
            mode = "offline"
            print(
                "note: --wandb: no key, so the run is kept offline; wandb sync "
                f"{workdir}/wandb/offline-run-* uploads it",
                flush=True,
            )
        self._run = wandb.init(
            project=PROJECT,
            name=workdir.absolute().name,
            dir=str(workdir),
            config=dataclasses.asdict(experiment),
            mode=mode,
            settings=wandb.Settings(silent=True),
        )

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log({**values, "epoch": number}, step=number)

    def image(self, number: int, name: str, path: pathlib.Path) -> None:
        """See `Tracker`."""
        self._run.log({name: self._wandb.Image(str(path))}, step=number)

    def close(self, status: int) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=status)


class Trackers:
    """The trackers of a run, each until it fails.

    Args:
      experiment: its `tensorboard` and `wandb` choose them.
      workdir: run directory, or None on processes that do not write.
    """

    def __init__(self, experiment: Experiment, workdir: pathlib.Path | None):
        wanted = [name for name in TRACKERS if getattr(experiment, name)]
        self._left = wanted if workdir else []
        self._experiment = experiment
        self._workdir = workdir
        self._open: dict[str, Tracker] = {}
        self._after = 0

    def resume(self, epochs: int) -> None:
        """Says how many epochs are done."""
        self._after = epochs

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Hands the numbers of an epoch, counted from 1, to all."""
        self._each(lambda tracker: tracker.epoch(number, values))

    def images(self, number: int) -> None:
        """Hands the pictures that lie in the run directory to all."""
        workdir = self._workdir
        if not workdir or not self._left:
            return
        for path in sorted([*workdir.glob("*.png"), *workdir.glob("plots/*.png")]):
            self._each(
                lambda tracker, path=path: tracker.image(number, path.stem, path)
            )

    def close(self, status: int) -> None:
        """Ends all."""
        for name in self._open:
            with self._survived(name):
                self._open[name].close(status)
        self._open = {}
        self._left = []

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name in list(self._left):
            with self._survived(name):
                # Opened at the first epoch: a run that fails before leaves nothing.
                if name not in self._open:
                    make = TRACKERS[name]
                    assert self._workdir
                    self._open[name] = make(
                        self._experiment, self._workdir, self._after
                    )
                action(self._open[name])

    @contextlib.contextmanager
    def _survived(self, name: str) -> Iterator[None]:
        """Gives a tracker up that fails, in one line; training goes on."""
        try:
            yield
        # A tracker may raise anything: its disk, its server, its own faults.
        except Exception as error:
            if name in self._left:
                self._left.remove(name)
            print(f"note: --{name}: {_reason(error)}; training goes on", flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; {INSTALL} {error.name}"
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}"


TRACKERS: dict[str, Callable[[Experiment, pathlib.Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}
"""Flag -> its tracker."""

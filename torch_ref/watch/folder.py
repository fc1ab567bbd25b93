"""The folder of a recording: a new trace, or one that goes on."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import trace
from torch_ref.watch.background import Background


class Folder(Background):
    """Writes steps, on a thread; the trace begins with the first.

    Args:
      path: new or empty folder, or that of a trace that ends before `first_step`.
      first_step: number of the first step in the whole training.

    Raises:
      UserError: the folder holds something else.
    """

    def __init__(self, path: pathlib.Path, first_step: int):
        super().__init__(self._write)
        self._path = path
        self._writer: trace.Writer | None = None
        self._next = 0
        self._entries: dict[str, Any] = {}
        if (path / "meta.json").exists():
            self._next = _end(path, first_step)
            self._writer = trace.Writer.resume(path)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path}: not an empty folder; give own.record a new one")

    def _write(
        self,
        tensors: Mapping[str, Any],
        meta: Mapping[str, Any],
        entries: dict[str, Any],
    ) -> None:
        """Writes the next step.

        Args:
          tensors: by the trace's names.
          meta: meta.json, for the first step of the trace.
          entries: those of meta.json that may grow from step to step.
        """
        if self._writer is None:
            # The writer makes the folder itself and wants none.
            if self._path.exists():
                self._path.rmdir()
            self._writer = trace.Writer(self._path, "full", {**meta, **entries})
        elif entries != self._entries:
            self._writer.amend(entries)
        self._entries = entries
        self._writer.write(self._next, tensors)
        self._next += 1


def _end(path: pathlib.Path, first_step: int) -> int:
    """Returns the number of steps in a trace that `first_step` continues."""
    reader = trace.Reader(path)
    begun = reader.meta.get("first_step", 0)
    if reader.meta.get("names") != "torch" or first_step - begun != len(reader):
        raise UserError(
            f"{path}: holds a trace of {len(reader)} steps from step {begun} on, which "
            f"first_step={first_step} does not continue; give another folder"
        )
    return len(reader)

"""What a sweep keeps while it runs, so that a killed one goes on bit for bit.

members/NAME.json holds the records of a chunk of members, with the epochs they have
completed and the name of a file with their states, if they are to train on.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.sweep.records import Record

FOLDER = "members"
PLAN = "sweep.json"


class Part(NamedTuple):
    """A chunk of members, after some epochs.

    Attributes:
      epochs: completed.
      records: member's number -> its record.
      states: [members, ...] leaves of their states; None if they train no further.
    """

    epochs: int
    records: dict[int, Record]
    states: list[np.ndarray] | None


def begin(workdir: pathlib.Path, plan: Mapping[str, Any], resumes: bool) -> None:
    """Writes what a sweep is, or checks that the one to resume is the same.

    Raises:
      UserError: it is another one, or there is none.
    """
    if not resumes:
        (workdir / FOLDER).mkdir(exist_ok=True)
        artifacts.write_text(workdir / PLAN, json.dumps(plan, indent=2) + "\n")
        return
    try:
        before = json.loads((workdir / PLAN).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"--resume: cannot read {workdir / PLAN}: {error}; --overwrite the sweep"
        ) from None
    for flag in plan:
        if before.get(flag) != plan[flag]:
            raise UserError(
                f"--{flag}: {plan[flag]} now, {before.get(flag)} in the sweep to "
                "resume; they must be equal"
            )


class Store:
    """Saves and loads parts.

    Args:
      workdir: folder of the sweep.
    """

    def __init__(self, workdir: pathlib.Path):
        self._folder = workdir / FOLDER

    def save(self, name: str, part: Part) -> None:
        """Writes a part in the place of its last; whole or not at all."""
        stale = self._states_of(name)
        states = None
        if part.states is not None:
            states = f"{name}_{part.epochs}.safetensors"
            arrays = {str(place): leaf for place, leaf in enumerate(part.states)}
            artifacts.write_arrays(self._folder / states, arrays)
        content = {
            "epochs": part.epochs,
            "states": states,
            "records": {
                number: dataclasses.asdict(record)
                for number, record in part.records.items()
            },
        }
        artifacts.write_text(self._path(name), json.dumps(content) + "\n")
        if stale and stale != states:
            (self._folder / stale).unlink(missing_ok=True)

    def load(self, name: str) -> Part | None:
        """Returns a part, or None if none was written.

        Raises:
          UserError: it is not as it was written.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            records = {
                int(number): Record(**record)
                for number, record in content["records"].items()
            }
            epochs, states = content["epochs"], content["states"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"--resume: {path} is not as it was written ({error}); remove it, and "
                "its members train again"
            ) from None
        return Part(epochs, records, states and self._read(states))

    def _read(self, name: str) -> list[np.ndarray]:
        arrays = artifacts.read_arrays(self._folder / name, "--resume")
        return [arrays[str(place)] for place in range(len(arrays))]

    def _states_of(self, name: str) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads(self._path(name).read_text())["states"]
        return None

    def _path(self, name: str) -> pathlib.Path:
        return self._folder / f"{name}.json"


def stack(states: Sequence[Any]) -> list[np.ndarray]:
    """Returns the leaves of some states, [members, ...] each."""
    leaves = [jax.tree.leaves(state) for state in states]
    return [np.stack(of_all) for of_all in zip(*leaves)]


def unstack(leaves: Sequence[np.ndarray], like: Any, count: int) -> list[Any]:
    """Returns the states of `stack`, of the structure of `like`."""
    structure = jax.tree.structure(like)
    return [
        jax.tree.unflatten(structure, [leaf[place] for leaf in leaves])
        for place in range(count)
    ]

"""Runs the torch half, which alone reads and writes DeepSpeed's files."""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.experiment.files import artifacts
from parity import stacks

MODULE = "torch_ref.foreign"
STATE, ABOUT, GROUPS = "state.safetensors", "about.json", "groups.json"

Arrays = Mapping[str, np.ndarray]
Groups = Sequence[Sequence[str]] | None


class Held(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      arrays: "params/NAME", "buffers/NAME", "moments/KEY/NAME"; torch's names.
      about: what else there is to know; torch_ref/foreign/state.py lists it.
    """

    arrays: dict[str, np.ndarray]
    about: dict[str, Any]


def read(
    checkpoint: pathlib.Path, scratch: pathlib.Path, groups: Groups, flag: str
) -> Held:
    """Returns what DeepSpeed's checkpoint holds.

    Args:
      checkpoint: folder that engine.save_checkpoint wrote, or one tag's in it.
      scratch: a folder for files in between.
      groups: torch names of each group of the optimizer, where they cannot be told.
      flag: begins the messages.

    Raises:
      UserError: it cannot be read.
    """
    _run(checkpoint, scratch, groups, flag)
    about = json.loads((scratch / ABOUT).read_text())
    return Held(artifacts.read_arrays(scratch / STATE, flag), about)


def write(
    checkpoint: pathlib.Path,
    scratch: pathlib.Path,
    groups: Groups,
    arrays: Arrays,
    new: Mapping[str, Any],
    target: pathlib.Path,
) -> list[str]:
    """Writes a checkpoint like another one, with other values.

    Args:
      checkpoint: the other one.
      scratch: a folder for files in between.
      groups: as for `read`.
      arrays: values by the names of `Held`; what is not there stays.
      new: "counters", and "rate" if it changes.
      target: folder to write.

    Returns:
      Names of the arrays that are not as in the other one.

    Raises:
      UserError: the values do not fit it.
    """
    artifacts.write_arrays(scratch / STATE, arrays)
    artifacts.write_text(scratch / ABOUT, json.dumps(new))
    _run(checkpoint, scratch, groups, "--template", f"--write={target}")
    return json.loads((scratch / ABOUT).read_text())["changed"]


def _run(
    checkpoint: pathlib.Path,
    scratch: pathlib.Path,
    groups: Groups,
    flag: str,
    *more: str,
) -> None:
    if groups:
        artifacts.write_text(scratch / GROUPS, json.dumps(groups))
    command = [sys.executable, "-m", MODULE, f"--checkpoint={checkpoint}"]
    stacks.finish([*command, f"--handoff={scratch}", *more], MODULE, flag)

"""Torch half of `python -m parity.convert --port`: DeepSpeed's checkpoint <-> arrays.

    python -m torch_ref.foreign --checkpoint=CKPT --handoff=FOLDER
    python -m torch_ref.foreign --checkpoint=CKPT --handoff=FOLDER --write=NEW

The first writes FOLDER/state.safetensors and FOLDER/about.json, as
torch_ref/foreign/state.py says; the second reads them and writes the checkpoint with
their values to NEW.
"""

import json
import pathlib
import shutil
from typing import Any

import torch
from absl import flags

from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from torch_ref.foreign import groups, state
from torch_ref.foreign.counters import Counters
from torch_ref.foreign.opening import LATEST, Opened, open_anyones

STATE = "state.safetensors"
ABOUT = "about.json"
GROUPS = "groups.json"


def main(values: flags.FlagValues) -> None:
    """Reads a checkpoint, or fills one in."""
    folder = pathlib.Path(values.handoff)
    opened = open_anyones(pathlib.Path(values.checkpoint))
    given = folder / GROUPS
    named = groups.of(opened, json.loads(given.read_text()) if given.exists() else None)
    if not values.write:
        artifacts.write_arrays(folder / STATE, state.arrays_of(opened, named))
        artifacts.write_text(
            folder / ABOUT, json.dumps(state.describe(opened, named)) + "\n"
        )
        return
    arrays = artifacts.read_arrays(folder / STATE, "--from")
    new: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    changed = state.put(opened, named, arrays, Counters(**new["counters"]))
    if new.get("rate") is not None:
        state.put_rate(opened, new["rate"])
    save(opened, pathlib.Path(values.write))
    artifacts.write_text(folder / ABOUT, json.dumps({"changed": changed}) + "\n")


def save(opened: Opened, target: pathlib.Path) -> None:
    """Writes a checkpoint with the names of its files, and `latest`."""
    tag = target / opened.folder.name
    tag.mkdir(parents=True)
    for path in opened.folder.iterdir():
        if path in opened.files:
            torch.save(opened.files[path], tag / path.name)
        elif path.is_file():
            shutil.copy2(path, tag)
    # DeepSpeed lays its scripts beside the tags.
    for script in opened.folder.parent.glob("zero_to_*.py"):
        shutil.copy2(script, target)
    artifacts.write_text(target / LATEST, opened.folder.name)


def define_flags(values: flags.FlagValues) -> None:
    """Defines what to read and to write."""
    for name, text in (
        ("checkpoint", "DeepSpeed's checkpoint."),
        ("handoff", "Folder of the arrays."),
        ("write", "Folder to write a filled-in checkpoint into."),
    ):
        flags.DEFINE_string(name, "", text, flag_values=values)


if __name__ == "__main__":
    command_line.run_tool(main, __doc__, define_flags)

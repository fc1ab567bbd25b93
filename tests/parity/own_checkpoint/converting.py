"""`parity.convert --port` within a process: both halves, without starting another."""

import pathlib
import sys
from unittest import mock

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from parity import convert as command
from parity import stacks
from torch_ref.foreign import __main__ as torch_half


def convert(source, port, target, template=""):
    """Runs the command; raises what it would print."""
    argv = ["", f"--from={source}", f"--port={port}", f"--to={target}"]
    argv.append(f"--template={template}")
    path = list(sys.path)
    with mock.patch.object(stacks, "finish", _finish):
        values = command_line.parse_values(argv, command.define_flags)
        command.main(values)
    sys.path[:] = path


def _finish(argv: list[str], module: str, flag: str) -> None:
    assert module == "torch_ref.foreign"
    values = command_line.parse_values(argv[2:], torch_half.define_flags)
    try:
        torch_half.main(values)
    except UserError as error:
        named = str(error).startswith("--")
        raise UserError(str(error) if named else f"{flag}: {error}") from None


def tags(folder: pathlib.Path) -> list[str]:
    """Names of all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

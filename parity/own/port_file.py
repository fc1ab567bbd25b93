"""Reads the names that a judgement, or a conversion, takes from a Python file."""

import importlib.util
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxnn.experiment.errors import UserError

NAMES = ("model", "loss", "optimizer", "convert")


def read_port(file: pathlib.Path) -> dict[str, Any]:
    """Returns {name: what the file defines by it, or None}.

    The file's folder is searched for what it imports, as if Python ran it.

    Raises:
      UserError: it is not there, fails, or defines no model.
    """
    defined = read_names(file, NAMES)
    if defined["model"] is None:
        raise UserError(
            f"{file}: it defines no `model`; it may define {', '.join(NAMES)}"
        )
    return defined


def read_names(file: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns {name: what the file defines by it, or None}, as `read_port`.

    Raises:
      UserError: it is not there, or fails.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; it defines {', '.join(names)}")
    spec = importlib.util.spec_from_file_location("own_port", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file}: not a Python file; its name ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_port"] = module
    sys.path.insert(0, str(file.resolve().parent))
    # Somebody else's program may raise anything; an exit with 0 is no parity.
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{file}: it raised {type(error).__name__}: {text}") from error
    return {name: getattr(module, name, None) for name in names}

"""A folder that appears whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from jaxnn.experiment.errors import UserError


def require_new(name: str) -> pathlib.Path:
    """Returns the folder that --to names.

    Raises:
      UserError: it names none, or one that exists.
    """
    if not name:
        raise UserError("--to: not given; name a folder that does not exist")
    target = pathlib.Path(name)
    if target.exists():
        raise UserError(f"--to: {target} exists already; name a folder that does not")
    return target


@contextlib.contextmanager
def beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder that becomes the target on success, and is removed on failure.

    Raises:
      UserError: it cannot be made.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--to: cannot write {target}: {error.strerror}") from None
    try:
        yield partial
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise

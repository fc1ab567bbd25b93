"""Somebody else's functions, whatever they raise said in one line."""

import contextlib
import textwrap
from collections.abc import Iterator

from jaxnn.experiment.errors import UserError

LONGEST = 400
"""Characters of a message that are repeated; JAX and flax add whole pages."""


@contextlib.contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Raises UserError for everything that a function raises.

    Args:
      what: name of the function in the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = textwrap.shorten(str(error), LONGEST, placeholder=" ...")
        raise UserError(f"{what}: it raised {type(error).__name__}: {text}") from error

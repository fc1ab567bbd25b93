"""The text of a ds_config -> its entries, parsed with hjson as DeepSpeed does.

Hjson is JSON with comments, trailing commas and unquoted words. An unquoted word goes
on to the end of its line, comma included, unless it is a number, true, false or null.
"""

import re
from collections import Counter
from typing import Any

from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.flags.deepspeed.showing import show

LFS = "version https://git-lfs"
# What templates put where a value belongs: {{ size }}, ${SIZE}, <SIZE>, CONFIG_SIZE.
PLACEHOLDER = re.compile(
    r"\{\{[^{}\n]*\}\}|\{%[^\n]*?%\}|\$\{[^{}\n]*\}|\$[A-Za-z_]\w*|<[A-Za-z_][\w .-]*>"
    r"|\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b__\w+__\b"
)
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def load(path: str) -> dict[str, Any]:
    """Returns the entries of a ds_config.

    Raises:
      UserError: the file cannot be read, is not Hjson, holds no object or has a key
        twice.
    """
    name = one_line(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"--ds_config: cannot read {name}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"--ds_config: {name}: is not text: {error}") from None
    entries = _parse(name, text)
    if not isinstance(entries, dict):
        raise UserError(
            f"--ds_config: {name}: must hold an object {{...}}, got {show(entries)}"
        )
    return entries


def placeholder(text: str) -> str:
    """Returns what a template has left unfilled in a text, or ""."""
    found = PLACEHOLDER.search(text)
    return found[0] if found else ""


def _parse(name: str, text: str) -> Any:
    # Most programs read no ds_config.
    import hjson

    if text.startswith(LFS):
        raise UserError(
            f"--ds_config: {name}: is a Git LFS pointer ({text.splitlines()[0]!r}), "
            "not the file; run `git lfs pull`"
        )
    try:
        return hjson.loads(text, object_pairs_hook=_without_duplicates)
    except _DuplicateKeyError as error:
        raise UserError(
            f"--ds_config: {name}: {error}: is there twice; keep one of them"
        ) from None
    # hjson recurses into objects, reads beyond the end of an unclosed comment, and
    # turns 1e999 into an integer.
    except (ValueError, RecursionError, IndexError, OverflowError) as error:
        raise UserError(
            f"--ds_config: {name}: is not JSON, nor Hjson, which DeepSpeed reads: "
            f"{_reason(error, text)}"
        ) from None


def _reason(error: Exception, text: str) -> str:
    # Quoted text may hold anything.
    unfilled = placeholder(QUOTED.sub('""', text))
    if unfilled:
        return f"{unfilled} is a placeholder that a script fills in; write the value"
    if isinstance(error, IndexError):
        return "a comment or a text has no end"
    if isinstance(error, OverflowError):
        return "a number is too large"
    return one_line(str(error))


class _DuplicateKeyError(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of equal keys, hjson silently keeps the last; DeepSpeed refuses them too.
    entries = dict(pairs)
    if len(entries) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _DuplicateKeyError(one_line(counts.most_common(1)[0][0]))
    return entries

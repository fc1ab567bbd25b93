"""Flags of the command line that contradict a ds_config."""

import contextlib
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxnn.experiment.errors import UserError, one_line
from jaxnn.experiment.flags.deepspeed.draft import Setting

# Relative difference at which a flag still agrees with a file: WarmupCosineLR's rates
# are products of a ratio and the peak.
ROUNDING = 1e-12


def contradictions(
    typed: Mapping[str, Any], settings: Mapping[str, Setting]
) -> dict[str, Any]:
    """Returns the flags of the command line that say otherwise, name -> value.

    Args:
      typed: flags of the command line, name -> value.
      settings: flag -> what the file makes of it.
    """
    return {
        flag: value
        for flag, value in typed.items()
        if flag in settings and not agrees(value, settings[flag])
    }


@contextlib.contextmanager
def told(
    name: str,
    wrong: Mapping[str, Any],
    settings: Mapping[str, Setting],
    argv: Sequence[str],
) -> Iterator[None]:
    """Raises UserError on contradictions, all at once, with what else is wrong.

    Args:
      name: of the file.
      wrong: flags that contradict it, name -> value.
      settings: flag -> what the file makes of it.
      argv: the command line, of which the message shows what works.
    """
    more = ""
    try:
        yield
    except UserError as error:
        if not wrong:
            raise
        more = f"; besides, {error}"
    if wrong:
        each = ", ".join(_told(flag, wrong[flag], settings[flag]) for flag in wrong)
        raise UserError(
            f"--ds_config: {name}: {each}; leave out one of them: "
            f"{_command(argv, [*wrong])}{more}"
        )


def agrees(given: Any, setting: Setting) -> bool:
    """Returns True if a flag says what the file says, or the file says nothing."""
    if not setting.is_stated:
        return True
    if isinstance(given, float):
        return math.isclose(given, setting.value, rel_tol=ROUNDING)
    return given == setting.value


def text(value: Any) -> str:
    """Returns a flag's value as it is written."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told(flag: str, given: Any, setting: Setting) -> str:
    return (
        f"{setting.key} means --{flag}={text(setting.value)}, the flag says "
        f"--{flag}={text(given)}"
    )


def _command(argv: Sequence[str], wrong: Sequence[str]) -> str:
    """Returns the command line without some of its flags."""
    kept, skips = [], False
    for argument in argv[1:]:
        name, equals, _ = argument.lstrip("-").partition("=")
        is_wrong = argument.startswith("-") and (
            name in wrong or name.removeprefix("no") in wrong
        )
        # The value of a flag may be the next argument.
        is_value = skips and not argument.startswith("-")
        skips = is_wrong and not equals
        if not is_wrong and not is_value:
            kept.append(one_line(argument))
    return shlex.join([*_program(argv), *kept])


def _program(argv: Sequence[str]) -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [argv[0]]

"""Dataclass fields that are flags: definition, conversion, range checks, flagfile."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from jaxnn.experiment.catalogue import is_own
from jaxnn.experiment.errors import UserError

INTEGERS_BELOW = 2**31
"""Counters on a device are int32."""
FLOATS = (1e-37, 1e37)
"""What the stacks compute with is float32, whose normal range is 1.2e-38 to 3.4e38."""
LONGEST_PART, LONGEST_PATH = 255, 4000
"""Bytes between two slashes and of a path that file systems take, nearly: a run adds
to it."""
SHOWN = 60
"""Characters of a bad value that its message repeats."""


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    or_own: bool = False,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    run_only: bool = False,
    path: bool = False,
) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: default value; its type (bool, int, float, str or tuple) is that of the
        flag.
      help: help text, with units.
      choices: allowed strings; empty: any string.
      or_own: FILE.py:NAME is allowed beside the choices.
      minimum: smallest allowed value, inclusive.
      above: lower bound, exclusive.
      below: upper bound, exclusive.
      run_only: True if the flag belongs to one run and not to the experiment; it is
        then left out of `experiment.flags`.
      path: True if it names a file or a folder, or several separated by commas.
    """
    metadata = dict(
        help=help,
        choices=tuple(choices),
        or_own=or_own,
        minimum=minimum,
        above=above,
        below=below,
        run_only=run_only,
        path=path,
    )
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(fields: Sequence[dataclasses.Field], values: flags.FlagValues) -> None:
    """Defines one absl flag per field on `values`."""
    for field in fields:
        default = field.default
        if isinstance(default, tuple):
            # DEFINE_list takes the default as a list of strings.
            default = list(map(str, default))

        text = field.metadata["help"]
        if any(field.metadata["choices"]):
            text += f" One of: {_listed(field)}."

        define = _DEFINERS[type(field.default)]
        define(field.name, default, text, flag_values=values)


def _listed(field: dataclasses.Field) -> str:
    """Returns the choices as text."""
    # An empty choice means "not given" (--precision).
    choices = [choice for choice in field.metadata["choices"] if choice]
    return ", ".join(choices + ["FILE.py:NAME"] * field.metadata["or_own"])


# No DEFINE_enum: `check_ranges` reports unknown values, in the same words for flags and
# for values from a ds_config.
_DEFINERS = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}


def read_flags(
    fields: Sequence[dataclasses.Field], values: flags.FlagValues
) -> dict[str, Any]:
    """Returns field name -> value of its parsed flag.

    Raises:
      UserError: an element of a list is not a number.
    """
    return {field.name: _convert(field, values[field.name].value) for field in fields}


def check_ranges(instance: Any) -> None:
    """Raises UserError on the first field of a dataclass that its option forbids."""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            _check_value(field, item)


def check_number(flag: str, value: float) -> None:
    """Raises UserError on a number that devices do not have: int32 and float32."""
    if isinstance(value, float):
        _check_float(flag, value)
    elif value >= INTEGERS_BELOW:
        raise UserError(
            f"{flag}: must be less than {INTEGERS_BELOW}, got {_short(str(value))}"
        )


def to_flagfile(instance: Any) -> str:
    """Returns the flagfile that sets a dataclass's values, without `run_only` flags."""
    lines = []
    for field in dataclasses.fields(instance):
        if not field.metadata["run_only"]:
            text = _as_text(getattr(instance, field.name))
            lines.append(f"--{field.name}={text}\n")
    return "".join(lines)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    # str() of a float is the shortest text that reads back as the same float.
    return str(value)


def _convert(field: dataclasses.Field, value: Any) -> Any:
    """Converts the strings of a list flag to a tuple of numbers."""
    if not isinstance(field.default, tuple):
        return value
    # The default of a list flag is empty and tells nothing about its elements.
    element = float if field.name == "dropout_rates" else int
    try:
        return tuple(element(item) for item in value if item)
    except ValueError:
        kind = {int: "whole numbers", float: "numbers"}[element]
        raise UserError(
            f"--{field.name}: takes {kind} separated by commas, got {','.join(value)!r}"
        ) from None


def _check_value(field: dataclasses.Field, value: Any) -> None:
    rules = field.metadata
    flag = f"--{field.name}"
    allowed = value in rules["choices"] or (rules["or_own"] and is_own(value))
    if any(rules["choices"]) and not allowed:
        raise UserError(f"{flag}: unknown value {value!r}; known: {_listed(field)}")
    if isinstance(value, str):
        _check_text(flag, value, rules["path"])
    elif isinstance(value, float) or isinstance(field.default, float):
        _check_float(flag, value, rules["below"])
    else:
        check_number(flag, value)
    if rules["minimum"] is not None and value < rules["minimum"]:
        raise UserError(f"{flag}: must be at least {rules['minimum']}, got {value}")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{flag}: must be greater than {rules['above']}, got {value}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UserError(f"{flag}: must be less than {rules['below']}, got {value}")


def _check_float(flag: str, value: float, below: float | None = None) -> None:
    """Raises UserError on a number that is another one, or none, in float32."""
    # NaN passes every comparison. A ds_config may hold a whole number of any length.
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag}: must be a finite number, got {value}")
    least, most = FLOATS
    if value and not least <= abs(value) <= most:
        raise UserError(
            f"{flag}: {_short(str(value))} is outside float32's range, {least:g} to "
            f"{most:g}"
        )
    if below is not None and value < below <= np.float32(value):
        raise UserError(f"{flag}: {value} is {below} in float32; lower it")


def _check_text(flag: str, value: str, is_path: bool) -> None:
    """Raises UserError on a text that no file system or flagfile takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{flag}: {_short(ascii(value))} is not UTF-8; rename it"
        ) from None
    # A flagfile has one flag a line, without blanks around it.
    if any(ord(character) < 32 for character in value):
        raise UserError(
            f"{flag}: {_short(ascii(value))} holds a control character; leave it out"
        )
    if is_path:
        _check_lengths(flag, value)


def _check_lengths(flag: str, value: str) -> None:
    for path in value.split(","):
        longest = max(len(part.encode()) for part in path.split("/"))
        if longest > LONGEST_PART or len(path.encode()) > LONGEST_PATH:
            raise UserError(
                f"{flag}: {_short(value)} is too long, {len(path.encode())} bytes with "
                f"a name of {longest}; file systems take {LONGEST_PATH} and "
                f"{LONGEST_PART}"
            )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

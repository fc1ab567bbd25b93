"""`--grid`: which flags vary, and over what.

    learning_rate=1e-4,1e-3,1e-2; optimizer=sgd,adam; seed=0..4; hidden_sizes=64,32|128

Axes are separated by semicolons, values by commas; those of a flag that takes a list,
by bars. a..b are the whole numbers from a to b. With `--random`, a..b of a flag that
takes any number is drawn between them: by its logarithm where both are above 0, else
uniformly; a..b:uniform and a..b:log say which.
"""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line, options, parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import flag_roles

FIELDS = {field.name: field for field in dataclasses.fields(Experiment)}
EXAMPLE = "e.g. --grid='learning_rate=1e-3,1e-2; seed=0..4'"
LOG, UNIFORM = "log", "uniform"


class Interval(NamedTuple):
    """Numbers to draw from.

    Attributes:
      low: the least.
      high: the largest.
      is_log: True to draw the logarithm uniformly, False the number.
    """

    low: float
    high: float
    is_log: bool


class Axis(NamedTuple):
    """A flag that varies.

    Attributes:
      flag: its name.
      values: what it takes, in order, or an interval to draw from.
    """

    flag: str
    values: Sequence[Any] | Interval


def parse(text: str, base: Experiment, is_random: bool) -> list[Axis]:
    """Returns the axes of `--grid`.

    Args:
      text: value of the flag.
      base: experiment whose flags vary.
      is_random: True if intervals are allowed.

    Raises:
      UserError: no axes, one that is no flag or makes no sense, one given twice, or a
        value that its flag refuses.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise UserError(f"--grid: give at least one axis, {EXAMPLE}")
    axes = [_axis(part, base, is_random) for part in parts]
    flags = [axis.flag for axis in axes]
    for flag in flags:
        if flags.count(flag) > 1:
            raise UserError(f"--grid: {flag} is given twice; join its values")
    return axes


def _axis(text: str, base: Experiment, is_random: bool) -> Axis:
    flag, equals, values = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(f"--grid: {text!r} is not FLAG=VALUES, {EXAMPLE}")
    flag = flag.removeprefix("--")
    _check_flag(flag)
    field = FIELDS[flag]
    mark = "|" if isinstance(field.default, tuple) else ","
    texts = [value.strip() for value in values.split(mark)]
    # An empty list is a value; nothing else is.
    if not values or (mark == "," and not all(texts)):
        raise UserError(f"--grid: {flag} has an empty value; give {flag}=VALUE,VALUE")
    return Axis(flag, _values(field, texts, base, is_random))


def _check_flag(flag: str) -> None:
    if flag not in FIELDS:
        near = difflib.get_close_matches(flag, FIELDS, 1)
        hint = f"; did you mean {near[0]}" if near else "; --help lists them all"
        raise UserError(f"--grid: {flag}: no such flag{hint}")
    if flag == "num_folds":
        raise UserError("--grid: num_folds is no axis; give --num_folds itself")
    if flag in flag_roles.OF_THE_TASK:
        raise UserError(
            f"--grid: {flag} changes what is learned, and nothing compares; run a "
            "sweep for each"
        )
    if not flag_roles.is_axis(FIELDS[flag]):
        raise UserError(
            f"--grid: {flag} changes nothing that is learned; give --{flag} itself"
        )


def _values(
    field: dataclasses.Field, texts: list[str], base: Experiment, is_random: bool
) -> Sequence[Any] | Interval:
    if len(texts) == 1 and ".." in texts[0] and type(field.default) in (int, float):
        return _span(field, texts[0], base, is_random)
    values = [read_value(field, text, base) for text in texts]
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"--grid: {field.name} has {value} twice; leave one out")
    return values


def _span(
    field: dataclasses.Field, text: str, base: Experiment, is_random: bool
) -> Sequence[Any] | Interval:
    span, _, kind = (part.strip() for part in text.partition(":"))
    low, high = (
        read_value(field, end.strip(), base) for end in span.split("..", maxsplit=1)
    )
    if not low < high:
        raise UserError(f"--grid: {field.name}={text}: {low} is not below {high}")
    if isinstance(field.default, int) and not kind:
        return range(low, high + 1)
    if not is_random:
        raise UserError(
            f"--grid: {field.name}={text} has no end of values; list some, or give "
            "--random"
        )
    if kind not in ("", LOG, UNIFORM) or isinstance(field.default, int):
        raise UserError(
            f"--grid: {field.name}={text}: after the colon of numbers with decimals "
            f"comes {LOG} or {UNIFORM}"
        )
    if kind == LOG and low <= 0:
        raise UserError(f"--grid: {field.name}={text}: {low} has no logarithm")
    return Interval(low, high, kind == LOG or (not kind and low > 0))


def read_value(field: dataclasses.Field, text: str, base: Experiment) -> Any:
    """Returns a value of a flag from its text.

    Raises:
      UserError: the flag refuses it.
    """
    values = command_line.parse_values(
        ["sweep", f"--{field.name}={text}"],
        lambda values: options.define_flags([field], values),
    )
    value = options.read_flags([field], values)[field.name]
    if field.name == "model":
        value = parsing.absolute(value)
    options.check_ranges(base.replace(**{field.name: value}))
    return value


def size(axes: Sequence[Axis]) -> int:
    """Returns how many settings a grid has."""
    return math.prod(len(axis.values) for axis in axes)


def spell(settings: dict[str, Any]) -> str:
    """Returns settings as text: "learning_rate=0.001 seed=3"."""
    return " ".join(f"{flag}={spell_value(value)}" for flag, value in settings.items())


def spell_value(value: Any) -> str:
    """Returns a value as a flag takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

"""Dataclass fields that are flags: definition, conversion, range checks, and back to a
flagfile."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxnn.experiment.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    run_only: bool = False,
) -> Any:
    """Returns a dataclass field that is also a flag.

    Args:
      default: value without the flag; its type (bool, int, float, str, tuple) is the
        flag's.
      help: what it does, with units.
      choices: the allowed strings; empty means any.
      minimum: smallest allowed value, inclusive.
      above: lower bound, exclusive.
      below: upper bound, exclusive.
      run_only: True for what belongs to one run and not to the experiment;
        such flags are left out of `experiment.flags`.
    """
    metadata = dict(
        help=help,
        choices=tuple(choices),
        minimum=minimum,
        above=above,
        below=below,
        run_only=run_only,
    )
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(fields: Sequence[dataclasses.Field], values: flags.FlagValues) -> None:
    """Defines one absl flag per field on `values`."""
    for field in fields:
        define = _DEFINERS[type(field.default)]
        default = (
            list(map(str, field.default))
            if isinstance(field.default, tuple)
            else field.default
        )
        text = field.metadata["help"]
        if any(field.metadata["choices"]):
            text += f" One of: {', '.join(filter(None, field.metadata['choices']))}."
        define(field.name, default, text, flag_values=values)


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
    """Field name -> value of its parsed flag.

    Raises:
      UserError: a list holds something that is not a number.
    """
    return {field.name: _convert(field, values[field.name].value) for field in fields}


def check_ranges(instance: Any) -> None:
    """Raises UserError on the first field of a dataclass that is out of range or
    unknown."""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            _check_value(field, item)


def to_flagfile(instance: Any) -> str:
    """The text of a flagfile that gives a dataclass its values again, without what
    belongs to one run."""
    lines = []
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        if not field.metadata["run_only"]:
            lines.append(
                f"--{field.name}={str(value).lower() if isinstance(value, bool) else value}\n"
            )
    return "".join(lines)


def _convert(field: dataclasses.Field, value: Any) -> Any:
    if not isinstance(field.default, tuple):
        return value
    element = float if field.name == "dropout_rates" else int
    try:
        return tuple(element(item) for item in value if item)
    except ValueError:
        kind = {int: "whole numbers", float: "numbers"}[element]
        raise UserError(
            f"--{field.name}: takes {kind} separated by commas, got {','.join(value)!r}"
        ) from None


def _check_value(field: dataclasses.Field, value: Any) -> None:
    rules, flag = field.metadata, f"--{field.name}"
    if any(rules["choices"]) and value not in rules["choices"]:
        raise UserError(
            f"{flag}: unknown value {value!r}; known: "
            f"{', '.join(filter(None, rules['choices']))}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{flag}: must be a finite number, got {value}")
    if rules["minimum"] is not None and value < rules["minimum"]:
        raise UserError(f"{flag}: must be at least {rules['minimum']}, got {value}")
    if rules["above"] is not None and value <= rules["above"]:
        raise UserError(f"{flag}: must be greater than {rules['above']}, got {value}")
    if rules["below"] is not None and value >= rules["below"]:
        raise UserError(f"{flag}: must be less than {rules['below']}, got {value}")

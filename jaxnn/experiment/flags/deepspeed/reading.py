"""A user's ds_config.json -> flags: `--ds_config=theirs.json` trains what DeepSpeed
would have.

What the file says and a flag says otherwise is a contradiction. Where the file is
silent, a flag decides, or else DeepSpeed's default, with a note if it is not jaxnn's.
What the file leaves to Hugging Face ("auto") is left to the flags.
"""

import math
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import (
    batch,
    keys,
    optimizer,
    precision_blocks,
    scheduler,
)
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting
from jaxnn.experiment.flags.deepspeed.source import load

STAGE_0_FP16 = (
    "with fp16 and no ZeRO, DeepSpeed 0.19 divides by a loss scale that it never "
    "multiplied with (its pull request 8393) and has no hysteresis; jaxnn does not "
    "copy that, it trains as with ZeRO 1"
)

ROUNDING = 1e-12
"""Of ratios that become rates."""


class Reading(NamedTuple):
    """What a file means.

    Attributes:
      settings: flag -> value and origin.
      notes: lines about defaults that surprise and keys that are ignored.
    """

    settings: dict[str, Setting]
    notes: list[str]


def read(path: str, flags: Mapping[str, Any], given: Collection[str]) -> Reading:
    """Translates a file.

    Args:
      path: of the file.
      flags: every flag, name -> value.
      given: names of those that the user gave.

    Raises:
      UserError: it cannot be read, contradicts itself, or asks for what jaxnn does not
        compute.
    """
    source = load(path)
    ignored = keys.check(source)
    draft = Draft(source, flags, given)
    for part in (batch, precision_blocks, optimizer, scheduler):
        part.read(draft)
    left = [
        key
        for key in source.auto
        if not keys.covering(key, keys.IGNORED) and not keys.covering(key, keys.REFUSED)
    ]
    if left:
        draft.notes.append(f'left to the flags, being "auto": {", ".join(left)}')
    if ignored:
        draft.notes.append(f"ignored, without a meaning in JAX: {', '.join(ignored)}")
    return Reading(draft.settings, draft.notes)


def from_flags(values: flags.FlagValues, default_precision: str) -> Experiment:
    """As `parsing.from_flags`, with the settings of `--ds_config`; prints the notes.

    Raises:
      UserError: also, a flag and the file say different things.
    """
    path = values["ds_config"].value
    given = {name: values[name].value for name in values if values[name].present}
    reading = read(path, {name: values[name].value for name in values}, given)
    notes = list(reading.notes)
    for name, setting in reading.settings.items():
        if name in given:
            _check_agreement(path, name, given[name], setting)
            continue
        value = type(values[name].value)(setting.value)
        if not setting.is_stated and value != values[name].value:
            notes.append(_default_note(path, name, setting))
        setattr(values, name, value)
    experiment = _checked(values, default_precision, path, reading.settings)
    if experiment.zero_stage == 0 and experiment.precision == "fp16":
        notes.append(f"zero_optimization.stage: {STAGE_0_FP16}")
    if os.environ.get("RANK", "0") == "0":  # of the deepspeed launcher
        for note in notes:
            print(f"note: --ds_config: {note}", file=sys.stderr)
    return experiment


def _check_agreement(path: str, name: str, given: Any, setting: Setting) -> None:
    same = (
        math.isclose(given, setting.value, rel_tol=ROUNDING)
        if isinstance(given, float)
        else given == setting.value
    )
    if setting.is_stated and not same:
        raise UserError(
            f"--ds_config: {path}: {setting.key} means "
            f"--{name}={_text(setting.value)}, the flag says --{name}={_text(given)}; "
            "leave out one of them"
        )


def _default_note(path: str, name: str, setting: Setting) -> str:
    why = f"; {setting.why}" if setting.why else ""
    return (
        f"{setting.key}: not in {path}; DeepSpeed's default: "
        f"--{name}={_text(setting.value)}{why}"
    )


def _checked(
    values: flags.FlagValues,
    default_precision: str,
    path: str,
    settings: dict[str, Setting],
) -> Experiment:
    """The experiment; an error about a flag that the file has set names the key too."""
    try:
        return parsing.from_flags(values, default_precision)
    except UserError as error:
        setting = settings.get(str(error).partition(":")[0].removeprefix("--"))
        if setting is None or not setting.is_stated:
            raise
        raise UserError(f"--ds_config: {path}: {setting.key}: {error}") from None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

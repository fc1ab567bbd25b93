"""ds_config.json -> flags: `--ds_config=theirs.json` trains as DeepSpeed would.

Where the file and a flag disagree, that is an error. Where the file is silent, the flag
decides if it is given, else DeepSpeed's default, with a note if jaxnn has another one.
Where the file says "auto", the flag decides.
"""

import math
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import engine, keys, optimizer, scheduler
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting, load

# MISMATCHES D1, D4.
STAGE_0_FP16 = (
    "with fp16 and no ZeRO, DeepSpeed 0.19 divides by a loss scale that it never "
    "multiplied with (its pull request 8393) and has no hysteresis; jaxnn does not "
    "copy that, it trains as with ZeRO 1"
)

# Relative difference at which a flag still agrees with a file: WarmupCosineLR's rates
# are products of a ratio and the peak.
ROUNDING = 1e-12


def read(path: str, flags: Mapping[str, Any], given: Collection[str]) -> Draft:
    """Translates a file into settings and notes.

    Args:
      path: path of the file.
      flags: every flag, name -> value.
      given: names of the flags that the user gave.

    Raises:
      UserError: the file cannot be read, contradicts itself, or asks for something that
        jaxnn does not compute.
    """
    source = load(path)
    ignored = keys.check(source)
    draft = Draft(source, flags, given)
    # The scheduler comes last: its rates replace or multiply the optimizer's.
    for block in (engine, optimizer, scheduler):
        block.read(draft)

    left = [
        key
        for key in source.auto
        if not keys.covering(key, (*keys.IGNORED, *keys.REFUSED))
    ]
    if left:
        draft.notes.append(f'left to the flags, being "auto": {", ".join(left)}')
    if ignored:
        draft.notes.append(f"ignored, without a meaning in JAX: {', '.join(ignored)}")
    return draft


def from_flags(values: flags.FlagValues, default_precision: str) -> Experiment:
    """`parsing.from_flags` with the settings of `--ds_config`; prints the notes.

    Raises:
      UserError: as in `parsing.from_flags` and `read`, or a flag contradicts the file.
    """
    path = str(values.ds_config)
    given = {name: values[name].value for name in values if values[name].present}
    draft = read(path, {name: values[name].value for name in values}, given)
    notes = list(draft.notes)
    for name, setting in draft.settings.items():
        if name in given:
            _check_agreement(path, name, given[name], setting)
            continue
        # The type of the flag, so that "1" and "1.0" of a file are the same flag value.
        kind: type = type(values[name].value)
        value = kind(setting.value)
        if not setting.is_stated and value != values[name].value:
            notes.append(_default_note(path, name, setting))
        setattr(values, name, value)

    experiment = _checked(values, default_precision, path, draft.settings)
    if experiment.zero_stage == 0 and experiment.precision == "fp16":
        notes.append(f"zero_optimization.stage: {STAGE_0_FP16}")
    # The launchers of DeepSpeed and torch set RANK: one process prints the notes.
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            print(f"note: --ds_config: {note}", file=sys.stderr)
    return experiment


def _check_agreement(path: str, name: str, given: Any, setting: Setting) -> None:
    if isinstance(given, float):
        is_same = math.isclose(given, setting.value, rel_tol=ROUNDING)
    else:
        is_same = given == setting.value
    if setting.is_stated and not is_same:
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
    """Returns the experiment; errors about a flag that the file sets name its key."""
    try:
        return parsing.from_flags(values, default_precision)
    except UserError as error:
        # Messages begin with the flag, "--batch_size: ".
        setting = settings.get(str(error).partition(":")[0].removeprefix("--"))
        if setting is None or not setting.is_stated:
            raise
        raise UserError(f"--ds_config: {path}: {setting.key}: {error}") from None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""ds_config.json -> flags: `--ds_config=theirs.json` trains as DeepSpeed would.

The file overrides a flagfile. Where it and the command line disagree, that is an
error. Where the file is silent, a flag decides if it is given, else DeepSpeed's
default, with a note if jaxnn has another one. `auto` is about "auto".
"""

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import (
    agreement,
    auto,
    engine,
    entries,
    keys,
    optimizer,
    passing,
    scheduler,
    strict,
)
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting

# MISMATCHES D1, D2, D4.
STAGE_0 = {
    "fp16": (
        "with fp16 and no ZeRO, DeepSpeed 0.19 divides by a loss scale that it never "
        "multiplied with (its pull request 8393), counts one step too many and has no "
        "hysteresis; jaxnn does not copy that, it trains as with ZeRO 1"
    ),
    "bf16": (
        "with bf16 and no ZeRO, DeepSpeed 0.19 begins with an update of zero "
        "gradients, so that Adam's first step counts as its second; jaxnn does not "
        "copy that, it trains as with ZeRO 1"
    ),
}


def read(
    path: str,
    flags: Mapping[str, Any],
    given: Collection[str],
    typed: Collection[str] = (),
) -> Draft:
    """Translates a file into settings and notes.

    Args:
      path: path of the file.
      flags: every flag, name -> value.
      given: names of the flags that the user gave, in a flagfile too.
      typed: names of those on the command line.

    Raises:
      UserError: the file cannot be read, contradicts itself, or asks for something that
        DeepSpeed refuses or jaxnn does not compute.
    """
    source = entries.read(path)
    strict.check(source)
    auto.refuse(source)
    passed, unused, ignored = keys.check(source)
    auto.fill(source, flags["ds_auto"])
    draft = Draft(source, flags, given, typed)
    draft.passed |= passed
    draft.ignored += ignored
    # The scheduler comes last: its rates replace or multiply the optimizer's.
    for block in (engine, optimizer, scheduler):
        block.read(draft)
    if draft.passed:
        names = ", ".join(keys.blocks(draft.passed))
        draft.notes.append(f"without a meaning in JAX, for DeepSpeed alone: {names}")
    if unused:
        draft.notes.append(f"ignored, without a meaning here: {', '.join(unused)}")
    return draft


def from_flags(
    values: flags.FlagValues,
    default_precision: str,
    typed: Collection[str],
    argv: Sequence[str],
) -> tuple[Experiment, Draft]:
    """`parsing.from_flags` with the settings of `--ds_config`; prints the notes.

    Args:
      values: parsed flags.
      default_precision: precision of this program if nothing says one.
      typed: names of the flags on the command line, outside flagfiles.
      argv: the command line.

    Returns:
      The checked experiment, and what the file made of it, for `keys_named`.

    Raises:
      UserError: as in `parsing.from_flags` and `read`, or a flag of the command line
        contradicts the file.
    """
    given = {name for name in values if values[name].present}
    everything = {name: values[name].value for name in values}
    draft = read(str(values.ds_config), everything, given, typed)
    passing.settle(draft)
    wrong = agreement.contradictions(draft.typed, draft.settings)
    draft.give_up(wrong)
    notes = [*draft.notes, *_apply(draft, values)]
    told = agreement.told(draft.source.name, wrong, draft.settings, argv)
    with told, keys_named(draft):
        experiment = parsing.from_flags(values, default_precision)
    if experiment.zero_stage == 0 and experiment.precision in STAGE_0:
        notes.append(f"zero_optimization.stage: {STAGE_0[experiment.precision]}")
    everything = {name: values[name].value for name in values}
    notes += auto.told(draft, str(values.ds_auto), everything, agreement.text)
    _print(draft, notes)
    return experiment, draft


@contextlib.contextmanager
def keys_named(draft: Draft | None) -> Iterator[None]:
    """Errors about a flag that a ds_config decides name the file and its key.

    Args:
      draft: what was read; None: there is no ds_config.
    """
    try:
        yield
    except UserError as error:
        # Messages begin with the flag, "--batch_size: ".
        flag = str(error).partition(":")[0].removeprefix("--")
        setting = draft and draft.settings.get(flag)
        if not (draft and setting) or (flag in draft.given and not setting.is_stated):
            raise
        raise draft.source.error(setting.key, str(error)) from None


def _apply(draft: Draft, values: flags.FlagValues) -> Iterator[str]:
    """Sets the flags that the file decides; yields what the user should know of it."""
    overridden = []
    for name, setting in draft.settings.items():
        # The type of the flag, so that "1" and "1.0" of a file are the same flag value.
        kind: type = type(values[name].value)
        value = kind(setting.value)
        if name in draft.typed or (name in draft.given and not setting.is_stated):
            continue
        if name in draft.given and value != values[name].value:
            overridden.append(f"--{name}={agreement.text(values[name].value)}")
        is_default = not setting.is_stated and setting.key not in draft.source.auto
        if is_default and value != values[name].value:
            yield _default_note(draft.source.name, name, setting)
        setattr(values, name, value)
    if overridden:
        yield f"the file overrides the flagfile's {', '.join(overridden)}"


def _default_note(path: str, name: str, setting: Setting) -> str:
    why = f"; {setting.why}" if setting.why else ""
    return (
        f"{setting.key}: not in {path}; DeepSpeed's default: "
        f"--{name}={agreement.text(setting.value)}{why}"
    )


def _print(draft: Draft, notes: Sequence[str]) -> None:
    """Prints the notes, and one warning about all that DeepSpeed ignores."""
    # The launchers of DeepSpeed and torch set RANK: one process prints.
    if os.environ.get("RANK", "0") != "0":
        return
    for note in notes:
        print(f"note: --ds_config: {note}", file=sys.stderr)
    if draft.ignored:
        print(
            f"warning: --ds_config: {draft.source.name}: DeepSpeed ignores, and so "
            f"does jaxnn: {', '.join(draft.ignored)}",
            file=sys.stderr,
        )

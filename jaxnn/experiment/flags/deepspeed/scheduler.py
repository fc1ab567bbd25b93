"""The scheduler block: DeepSpeed's three warm-up schedules (runtime/lr_schedules.py).

Its learning rates replace that of the optimizer block.
"""

from collections.abc import Callable
from typing import Any

from jaxnn.experiment.flags.deepspeed import auto, keys
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting
from jaxnn.experiment.flags.deepspeed.showing import show

PARAMS = "scheduler.params"

# Parameters of WarmupLR and WarmupDecayLR, and those of WarmupCosineLR.
RATES = ("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type")
RATIOS = (
    "total_num_steps",
    "warmup_min_ratio",
    "warmup_num_steps",
    "cos_min_ratio",
    "warmup_type",
)
WHY_NOT = {
    "OneCycle": " (nor harmless: unless cycle_momentum is false it replaces Adam's "
    "betas, beta1 going from 0.9 to 0.8 and back, beta2 0.99 for ever; MISMATCHES D22)"
}
REQUIRED = {"last_batch_iteration": -1}


def read(draft: Draft) -> None:
    """Sets the schedule and its learning rates; without the block the flags decide.

    The settings of the optimizer block must be in the draft.

    Raises:
      UserError: jaxnn does not have the scheduler.
    """
    source = draft.source
    kind = source.text("scheduler.type")
    if kind is None:
        if source.has_block("scheduler"):
            draft.ignored.append("scheduler (it has no type)")
        return
    if kind not in SCHEDULERS:
        raise source.error(
            "scheduler.type",
            f"{show(kind)} is not supported{WHY_NOT.get(kind, '')}; known: "
            f"{', '.join(SCHEDULERS)}",
        )
    if not source.has_block(PARAMS) or PARAMS in source.nulls:
        raise source.error(PARAMS, "is missing; DeepSpeed stops without it: write {}")
    auto.same_rate(draft)
    flag, function = SCHEDULERS[kind]
    draft.settings["schedule"] = Setting(flag, "scheduler.type")
    function(draft)

    draft.take("warmup_steps", f"{PARAMS}.warmup_num_steps", _positive(draft), 1000)
    _note_end(draft)
    warmup_type = f"{PARAMS}.warmup_type"
    draft.take("warmup_type", warmup_type, _curve(draft), "log")
    # "log" is jaxnn's default too, so that `reading` has no reason for a note; but few
    # expect a warm-up that is not linear.
    is_silent = warmup_type not in source.values
    if is_silent and "warmup_type" not in draft.given:
        draft.note(
            warmup_type,
            f"not in {source.name}; DeepSpeed's warm-up is a logarithm by default",
        )


def _warmup_lr(draft: Draft) -> None:
    keys.check_params(draft.source, PARAMS, RATES, REQUIRED, ())
    _rates(draft, None)


def _warmup_decay_lr(draft: Draft) -> None:
    keys.check_params(draft.source, PARAMS, (*RATES, "total_num_steps"), REQUIRED, ())
    _total_steps(draft)
    _rates(draft, 1e-3)


def _warmup_cosine_lr(draft: Draft) -> None:
    """Turns ratios of the peak into rates, which `schedules.warmup_cosine_lr` takes."""
    source = draft.source
    peak = draft.value("learning_rate")
    keys.check_params(source, PARAMS, RATIOS, REQUIRED, ())
    _total_steps(draft)

    start_key = f"{PARAMS}.warmup_min_ratio"
    end_key = f"{PARAMS}.cos_min_ratio"
    start = source.number(start_key)
    end = source.number(end_key)
    start_ratio = start or 0.0
    end_ratio = 1e-4 if end is None else end

    # --final_learning_rate=0 stands for the floor, so that it cannot say 0 itself.
    if start_ratio and not end_ratio:
        raise source.error(end_key, f"0 is not supported with {start_key} above 0")
    final = 0.0 if end_ratio == start_ratio else end_ratio * peak
    draft.settings["min_learning_rate"] = Setting(
        start_ratio * peak, start_key, start is not None
    )
    draft.settings["final_learning_rate"] = Setting(final, end_key, end is not None)


def _total_steps(draft: Draft) -> None:
    key = f"{PARAMS}.total_num_steps"
    if key in draft.source.auto:
        return
    if key not in draft.source.values:
        raise draft.source.error(key, "is missing, and DeepSpeed has no default for it")
    draft.take("schedule_steps", key, _positive(draft), 0)


def _note_end(draft: Draft) -> None:
    total, warmup = draft.value("schedule_steps"), draft.value("warmup_steps")
    if "schedule_steps" in draft.settings and total < warmup:
        draft.note(
            f"{PARAMS}.total_num_steps",
            f"{total} steps end before the peak, {PARAMS}.warmup_num_steps is {warmup}",
        )


def _rates(draft: Draft, default: float | None) -> None:
    """Sets the floor and the peak.

    Args:
      draft: settings so far.
      default: DeepSpeed's default of warmup_max_lr; None: the optimizer's rate.
    """
    source = draft.source
    key = f"{PARAMS}.warmup_max_lr"
    draft.take("min_learning_rate", f"{PARAMS}.warmup_min_lr", source.number, 0.0)

    peak = source.number(key)
    if peak is None and default is None:
        return
    unused = draft.settings.get("learning_rate")
    setting = Setting(default if peak is None else peak, key, source.states(key))
    draft.settings["learning_rate"] = setting
    if unused and unused.is_stated and unused.value != setting.value:
        draft.note(
            unused.key,
            f"{unused.value:g} is never used: {key} is the peak, "
            f"{'' if setting.is_stated else 'by default '}{setting.value:g}",
        )


def _curve(draft: Draft) -> Callable[[str], str | None]:
    """Returns a getter of the curve of a warm-up, as DeepSpeed takes it."""

    def read(key: str) -> str | None:
        curve = draft.source.values.get(key)
        if curve not in (None, "log", "linear"):
            draft.note(key, f"DeepSpeed does not know {show(curve)} and takes log")
            return "log"
        return curve

    return read


def _positive(draft: Draft) -> Callable[[str], int | None]:
    """Returns a getter of whole numbers that refuses those below 1."""

    def read(key: str) -> int | None:
        value = draft.source.whole(key)
        if value is not None and value < 1:
            raise draft.source.error(key, f"must be at least 1, got {value}")
        return value

    return read


SCHEDULERS: dict[str, tuple[str, Callable[[Draft], Any]]] = {
    "WarmupLR": ("warmup_lr", _warmup_lr),
    "WarmupDecayLR": ("warmup_decay_lr", _warmup_decay_lr),
    "WarmupCosineLR": ("warmup_cosine_lr", _warmup_cosine_lr),
}

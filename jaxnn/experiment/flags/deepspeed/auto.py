"""What "auto" stands for: `--ds_auto`.

DeepSpeed has no "auto". Hugging Face's Trainer replaces some by its arguments
(transformers, integrations/deepspeed.py); of the rest, DeepSpeed's pydantic blocks drop
theirs, and the others stop it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxnn.experiment.flags.deepspeed.draft import Draft
from jaxnn.experiment.flags.deepspeed.entries import DsConfigFile
from jaxnn.experiment.flags.deepspeed.strict import STRICT

TRAINER = "trainer"
DEEPSPEED = "deepspeed"

MICRO = "train_micro_batch_size_per_gpu"
PEAK = "scheduler.params.warmup_max_lr"

# Key -> what TrainingArguments has by default. train_batch_size follows from the other
# two, and total_num_steps is the length of the run.
FILLED: dict[str, Any] = {
    MICRO: 8,
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 1.0,
    "optimizer.params.lr": 5e-5,
    "optimizer.params.betas": [0.9, 0.999],
    "optimizer.params.eps": 1e-8,
    "optimizer.params.weight_decay": 0.0,
    "scheduler.params.warmup_min_lr": 0.0,
    PEAK: 5e-5,
    "scheduler.params.warmup_num_steps": 1,
    "fp16.enabled": False,
    "bf16.enabled": False,
}
FOLLOWING = ("train_batch_size", "scheduler.params.total_num_steps")
READ = (
    "optimizer.type",
    "optimizer.params.",
    "scheduler.type",
    "scheduler.params.",
)
"""What DeepSpeed reads of these two blocks."""


def refuse(source: DsConfigFile) -> None:
    """Raises UserError on an "auto" that neither the Trainer nor DeepSpeed takes."""
    for key in source.auto:
        if key.startswith(READ) and key not in FILLED and key not in FOLLOWING:
            raise source.error(
                key, '"auto" is filled in by nobody, not even the Trainer; write it out'
            )


def fill(source: DsConfigFile, mode: str) -> None:
    """Gives each "auto" the Trainer's default, unless they are dropped.

    Args:
      source: the file; gets `values` and `filled`.
      mode: `--ds_auto`.
    """
    if mode == DEEPSPEED:
        return
    for key in source.auto:
        if key in FILLED and key != MICRO:
            source.values[key] = FILLED[key]
            source.filled.add(key)


def same_rate(draft: Draft) -> None:
    """Makes an "auto" peak the Trainer's one learning rate, that of the optimizer."""
    peak = draft.settings.get("learning_rate")
    if PEAK in draft.source.filled and peak is not None:
        draft.source.values[PEAK] = peak.value


def told(
    draft: Draft, mode: str, values: Mapping[str, Any], show: Callable[[Any], str]
) -> list[str]:
    """Returns the line that lists each "auto" with what was taken for it, if any.

    Args:
      draft: of the whole file.
      mode: `--ds_auto`.
      values: flag -> the value it has got.
      show: makes text of such a value.
    """
    flags: dict[str, list[str]] = {}
    for flag, setting in draft.settings.items():
        text = f"--{flag}={show(values[flag])}"
        flags.setdefault(setting.key, []).append(text)
    taken = [
        f"{key} ({', '.join(flags.get(key) or [_without_flag(key, mode)])})"
        for key in draft.source.auto
    ]
    if mode == TRAINER or not taken:
        return []
    if mode == DEEPSPEED:
        return [f'"auto" is dropped: {", ".join(taken)}{_stopped(draft.source)}']
    return [
        '"auto" is a flag if given, else what Hugging Face\'s Trainer fills in by '
        f"default (--ds_auto=deepspeed drops it): {', '.join(taken)}"
    ]


def _without_flag(key: str, mode: str) -> str:
    """Returns what was taken for an "auto" that decides no flag by itself."""
    if key == "scheduler.params.total_num_steps":
        return "the steps of the run"
    if key in ("train_batch_size", MICRO):
        return "follows"
    if key in ("fp16.enabled", "bf16.enabled"):
        return "false"
    if key in FILLED and mode != DEEPSPEED:
        return str(FILLED[key])
    return "DeepSpeed's default"


def _stopped(source: DsConfigFile) -> str:
    """Returns which "auto" would stop DeepSpeed itself."""
    kept = [key for key in source.auto if key.rpartition(".")[0] not in STRICT]
    return f"; DeepSpeed itself would stop at {', '.join(kept)}" if kept else ""

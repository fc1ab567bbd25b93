"""Settings of the engine: batch sizes, precision, loss scaling, clipping, ZeRO stage.

These are the entries of a ds_config outside the optimizer and scheduler blocks.
"""

import os
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting

TRAIN = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
ACCUMULATION = "gradient_accumulation_steps"

# The micro batch size follows from these two and the number of ranks; it has no flag.
FLAGS = {TRAIN: "batch_size", ACCUMULATION: "accumulation_steps"}


def read(draft: Draft) -> None:
    """Sets batch sizes, precision, loss scaler, --clip_norm and --zero_stage.

    Raises:
      UserError: the batch sizes contradict each other, do not divide or are missing, or
        fp16 and bf16 are both enabled.
    """
    _batch_sizes(draft)
    _precision(draft)
    _loss_scaler(draft)
    draft.take(
        "clip_norm",
        "gradient_clipping",
        draft.source.number,
        1.0,
        "0 in the file switches clipping off",
    )
    _zero_stage(draft)


def _batch_sizes(draft: Draft) -> None:
    """Completes train = micro * accumulation * ranks as DeepSpeed does.

    Flags stand in for keys that the file does not have.
    """
    source = draft.source
    said = {key: source.whole(key) for key in (TRAIN, MICRO, ACCUMULATION)}
    for key, value in said.items():
        if value is not None and value < 1:
            raise source.error(key, f"must be at least 1, got {value}")

    sizes = {
        key: draft.given.get(FLAGS.get(key, "")) if value is None else value
        for key, value in said.items()
    }
    if sizes[TRAIN] is None and sizes[MICRO] is None:
        if TRAIN not in source.auto and MICRO not in source.auto:
            raise source.error(TRAIN, f"is missing; give it or {MICRO}")
        draft.take(FLAGS[ACCUMULATION], ACCUMULATION, source.whole, 1)
        return

    ranks = _world_size(draft.given)
    train, micro, accumulation = _complete(
        sizes[TRAIN], sizes[MICRO], sizes[ACCUMULATION], ranks
    )
    if train != micro * accumulation * ranks:
        # A size is named as the user gave it: by its key or by its flag.
        names = {
            key: f"--{FLAGS[key]}"
            if said[key] is None and key in FLAGS and FLAGS[key] in draft.given
            else key
            for key in said
        }
        raise source.error(
            MICRO,
            f"{micro} times {names[ACCUMULATION]} {accumulation} times {ranks} "
            f"device{'s' * (ranks > 1)} is not {names[TRAIN]} "
            f"{train}{_hint(train, micro * accumulation)}",
        )

    origin = MICRO if said[TRAIN] is None else TRAIN
    draft.settings[FLAGS[TRAIN]] = Setting(train, origin)
    draft.settings[FLAGS[ACCUMULATION]] = Setting(accumulation, ACCUMULATION)


def _world_size(given: Mapping[str, Any]) -> int:
    """Returns the number of ranks: --num_devices, else that of the launcher."""
    return given.get("num_devices") or int(os.environ.get("WORLD_SIZE", 1))


def _complete(
    train: int | None, micro: int | None, accumulation: int | None, ranks: int
) -> tuple[int, int, int]:
    """DeepSpeedConfig._set_batch_related_parameters (runtime/config.py).

    At least one of train and micro is given.
    """
    # As in DeepSpeed, sizes that do not divide are rounded down here; the caller
    # compares the product.
    if train is not None and micro is not None:
        return train, micro, accumulation or train // micro // ranks
    accumulation = accumulation or 1
    if train is not None:
        return train, train // ranks // accumulation, accumulation
    assert micro is not None
    return micro * accumulation * ranks, micro, accumulation


def _hint(train: int, per_rank: int) -> str:
    if per_rank and train % per_rank == 0:
        return f"; --num_devices={train // per_rank} would do"
    return ""


def _precision(draft: Draft) -> None:
    source = draft.source
    enabled = {name: source.boolean(f"{name}.enabled") for name in ("fp16", "bf16")}
    on = [name for name, value in enabled.items() if value]
    if len(on) > 1:
        raise source.error("bf16.enabled", "so is fp16.enabled; enable one of them")

    # If one block is "auto" and none is enabled, the flag decides.
    is_auto = any(
        f"{name}.enabled" in source.auto or name in source.auto for name in enabled
    )
    if not on and is_auto:
        return

    said = on or [name for name, value in enabled.items() if value is not None]
    key = f"{said[0]}.enabled" if said else "fp16.enabled"
    draft.settings["precision"] = Setting(
        on[0] if on else "fp32", key, bool(said), "neither fp16 nor bf16 is enabled"
    )


def _loss_scaler(draft: Draft) -> None:
    # The defaults are those of DeepSpeedFP16Config (runtime/precision_config.py), also
    # where the file has no fp16 block.
    source = draft.source
    draft.take("static_loss_scale", "fp16.loss_scale", source.number, 0.0)
    draft.take("initial_scale_power", "fp16.initial_scale_power", source.whole, 16)
    draft.take("loss_scale_window", "fp16.loss_scale_window", source.whole, 1000)
    draft.take("hysteresis", "fp16.hysteresis", source.whole, 2)
    draft.take(
        "consecutive_hysteresis", "fp16.consecutive_hysteresis", source.boolean, False
    )
    draft.take("min_loss_scale", "fp16.min_loss_scale", source.whole, 1)


def _zero_stage(draft: Draft) -> None:
    source = draft.source
    block = source.values.get("zero_optimization")
    # DeepSpeed still takes a boolean in place of the block (runtime/zero/config.py
    # read_zero_config_deprecated).
    if isinstance(block, bool):
        draft.settings["zero_stage"] = Setting(int(block), "zero_optimization")
    elif "zero_optimization" not in source.auto:
        draft.take("zero_stage", "zero_optimization.stage", source.whole, 0, "no ZeRO")

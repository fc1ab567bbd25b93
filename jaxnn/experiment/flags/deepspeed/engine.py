"""Settings of the engine: batch sizes, precision, loss scaling, clipping, ZeRO stage.

These are the entries of a ds_config outside the optimizer and scheduler blocks.
"""

import os
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.deepspeed import auto, strict
from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting
from jaxnn.experiment.flags.deepspeed.showing import show

TRAIN = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
ACCUMULATION = "gradient_accumulation_steps"

# The micro batch size follows from these two and the number of ranks; it has no flag.
FLAGS = {TRAIN: "batch_size", ACCUMULATION: "accumulation_steps"}


def read(draft: Draft) -> None:
    """Sets batch sizes, precision, loss scaler, --clip_norm and --zero_stage.

    Raises:
      UserError: the batch sizes contradict each other, do not divide or are missing,
        fp16 and bf16 are both enabled, or DeepSpeed does not have the combination.
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
    _gradients(draft)


def _batch_sizes(draft: Draft) -> None:
    """Completes train = micro * accumulation * ranks as DeepSpeed does.

    Flags stand in for keys that the file does not have, those of the command line
    first; those of a flagfile give way where they contradict the file.
    """
    source = draft.source
    said = {key: _said(draft, key) for key in (TRAIN, MICRO, ACCUMULATION)}
    ranks = _world_size(draft.given)
    for flags in (draft.given, draft.typed):
        sizes = _with_flags(said, flags)
        if sizes[TRAIN] is None and sizes[MICRO] is None:
            sizes[MICRO] = _fill_micro(draft)
        completed = _complete(sizes, ranks)
        if _is_product(completed, ranks):
            break
    else:
        raise _contradiction(draft, said, completed, ranks)
    train, _, accumulation = completed
    is_stated = said[TRAIN] is not None or said[MICRO] is not None
    is_micros = said[MICRO] is not None or (
        MICRO in source.auto and TRAIN not in source.auto
    )
    origin = MICRO if said[TRAIN] is None and is_micros else TRAIN
    draft.settings[FLAGS[TRAIN]] = Setting(train, origin, is_stated)
    draft.settings[FLAGS[ACCUMULATION]] = Setting(
        accumulation, ACCUMULATION, is_stated or source.states(ACCUMULATION)
    )


def _said(draft: Draft, key: str) -> int | None:
    """Returns a size that the file itself states."""
    source = draft.source
    value = source.whole(key) if source.states(key) else None
    if value is not None and value < 1:
        raise source.error(key, f"must be at least 1, got {value}")
    return value


def _with_flags(
    said: Mapping[str, int | None], flags: Mapping[str, Any]
) -> dict[str, int | None]:
    """Returns the sizes of the file, completed by flags where they are not enough."""
    sizes = dict(said)
    train, micro, accumulation = (said[key] for key in (TRAIN, MICRO, ACCUMULATION))
    if train is None and (micro is None or accumulation is None):
        sizes[TRAIN] = flags.get(FLAGS[TRAIN])
    if accumulation is None and (sizes[TRAIN] is None or micro is None):
        sizes[ACCUMULATION] = flags.get(FLAGS[ACCUMULATION])
    return sizes


def _fill_micro(draft: Draft) -> int:
    """Returns the Trainer's micro batch for "auto"; else the sizes are missing."""
    source = draft.source
    is_auto = TRAIN in source.auto or MICRO in source.auto
    if is_auto and draft.flags["ds_auto"] != auto.DEEPSPEED:
        return auto.FILLED[MICRO]
    raise source.error(
        TRAIN, f"is missing; give it or {MICRO} in the file, or --batch_size"
    )


def _is_product(sizes: tuple[int, int, int], ranks: int) -> bool:
    train, micro, accumulation = sizes
    return train == micro * accumulation * ranks and min(sizes) > 0


def _contradiction(
    draft: Draft,
    said: Mapping[str, int | None],
    sizes: tuple[int, int, int],
    ranks: int,
) -> UserError:
    """Returns the error about sizes that are no product.

    A size is named as the user gave it: by its key or by its flag.
    """
    train, micro, accumulation = sizes
    names = {
        key: f"--{FLAGS[key]}"
        if said[key] is None and key in FLAGS and FLAGS[key] in draft.typed
        else key
        for key in said
    }
    return draft.source.error(
        MICRO,
        f"{micro} times {names[ACCUMULATION]} {accumulation} times {ranks} "
        f"{_devices(draft, ranks)} is not {names[TRAIN]} "
        f"{train}{_hint(train, micro * accumulation)}",
    )


def _devices(draft: Draft, ranks: int) -> str:
    word = "devices" if ranks > 1 else "device"
    return f"{word} (--num_devices)" if draft.given.get("num_devices") else word


def _world_size(given: Mapping[str, Any]) -> int:
    """Returns the number of ranks: --num_devices, else that of the launcher."""
    return given.get("num_devices") or int(os.environ.get("WORLD_SIZE", 1))


def _complete(sizes: Mapping[str, int | None], ranks: int) -> tuple[int, int, int]:
    """DeepSpeedConfig._set_batch_related_parameters (runtime/config.py).

    At least one of train and micro is given.
    """
    train, micro, accumulation = (sizes[key] for key in (TRAIN, MICRO, ACCUMULATION))
    # As in DeepSpeed, sizes that do not divide are rounded down here; the caller
    # compares the product.
    if train is not None and micro is not None:
        if accumulation is None:
            accumulation = train // micro // ranks
        return train, micro, accumulation
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
    # "auto" is off, and says nothing against --precision.
    said = on or [name for name in enabled if source.states(f"{name}.enabled")]
    # What is off beside an "auto" leaves the other open, too.
    is_open = [name for name in enabled if f"{name}.enabled" in source.auto and not on]
    key = f"{[*is_open, *said, 'fp16'][0]}.enabled"
    draft.settings["precision"] = Setting(
        on[0] if on else "fp32",
        key,
        bool(said) and not is_open,
        "neither fp16 nor bf16 is enabled",
    )
    _auto_cast(draft, on)


def _auto_cast(draft: Draft, on: list[str]) -> None:
    """Notes inputs that DeepSpeed casts to fp16 although nothing else is.

    Under fp16 both stacks cast them anyway. DeepSpeed looks at no other key.
    """
    key = "fp16.auto_cast"
    if draft.source.boolean(key) and on != ["fp16"]:
        draft.note(
            key,
            "without fp16.enabled DeepSpeed still casts inputs to fp16, and stops at "
            "the first layer, whose weights are not; it is left out here",
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
    else:
        draft.take("zero_stage", "zero_optimization.stage", source.whole, 0, "no ZeRO")


def _gradients(draft: Draft) -> None:
    """Refuses formats of gradients and combinations that DeepSpeed does not have."""
    source = draft.source
    stage = int(draft.value("zero_stage"))
    strict.refuse_for_stage(source, stage)
    key = "data_types.grad_accum_dtype"
    name = source.text(key)
    if name is None:
        return
    if name not in FORMATS:
        raise source.error(
            key, f"{show(name)} is unknown to DeepSpeed; known: {', '.join(FORMATS)}"
        )
    if stage == 0 and FORMATS[name] != draft.value("precision"):
        raise source.error(
            key,
            f"DeepSpeed refuses {name} at ZeRO stage 0 in {draft.value('precision')}",
        )


# DtypeEnum (runtime/config.py).
FORMATS = {
    **dict.fromkeys(("fp16", "float16", "half", "torch.float16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("fp32", "float32", "float", "torch.float32"), "fp32"),
}

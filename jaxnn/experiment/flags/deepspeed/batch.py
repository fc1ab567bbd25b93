"""Batch sizes: train = micro x accumulation x ranks, of which DeepSpeed completes what
is missing."""

import os
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.flags.deepspeed.draft import Draft, Setting

TRAIN, MICRO, PARTS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
)
FLAGS = {TRAIN: "batch_size", PARTS: "accumulation_steps"}


def read(draft: Draft) -> None:
    """Sets --batch_size and --accumulation_steps, where the file is silent from those
    flags themselves.

    Raises:
      UserError: the sizes contradict each other, do not divide, or are missing.
    """
    source, ranks = draft.source, world_size(draft.given)
    said = {key: source.whole(key) for key in (TRAIN, MICRO, PARTS)}
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
        draft.take(FLAGS[PARTS], PARTS, source.whole, 1)
        return
    train, micro, parts = _complete(sizes[TRAIN], sizes[MICRO], sizes[PARTS], ranks)
    if train != micro * parts * ranks:
        names = {
            key: f"--{FLAGS[key]}"
            if said[key] is None and key in FLAGS and FLAGS[key] in draft.given
            else key
            for key in said
        }
        raise source.error(
            MICRO,
            f"{micro} times {names[PARTS]} {parts} times {ranks} "
            f"device{'s' * (ranks > 1)} is not {names[TRAIN]} "
            f"{train}{_hint(train, micro * parts)}",
        )
    draft.settings[FLAGS[TRAIN]] = Setting(
        train, MICRO if said[TRAIN] is None else TRAIN
    )
    draft.settings[FLAGS[PARTS]] = Setting(parts, PARTS)


def world_size(given: Mapping[str, Any]) -> int:
    """Ranks of this run: --num_devices, else the launcher's."""
    return given.get("num_devices") or int(os.environ.get("WORLD_SIZE", 1))


def _complete(
    train: int | None, micro: int | None, parts: int | None, ranks: int
) -> tuple[int, int, int]:
    """As DeepSpeedConfig._set_batch_related_parameters does; at least one of train and
    micro is given."""
    if train is not None and micro is not None:
        return train, micro, parts or train // micro // ranks
    parts = parts or 1
    if train is not None:
        return train, train // ranks // parts, parts
    assert micro is not None
    return micro * parts * ranks, micro, parts


def _hint(train: int, per_rank: int) -> str:
    return (
        f"; --num_devices={train // per_rank} would do"
        if per_rank and train % per_rank == 0
        else ""
    )

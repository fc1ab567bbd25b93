"""Brings what every rank has seen to rank 0."""

import itertools
from typing import Any

import torch


def gather(value: Any, rank: int, world_size: int) -> list[Any]:
    """Returns the values of all ranks, in their order, on rank 0; [] on others."""
    if world_size == 1:
        return [value]
    found: list[Any] | None = [None] * world_size if rank == 0 else None
    torch.distributed.gather_object(value, found, dst=0)
    return found or []


def interleave(passes: list[list[Any]]) -> list[Any]:
    """[[a0, a1], [b0, b1]] -> [a0, b0, a1, b1]: microbatches, within them ranks."""
    rows = itertools.zip_longest(*passes)
    return [item for row in rows for item in row if item is not None]

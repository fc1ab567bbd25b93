"""How many members are on the devices at once."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax

from jaxnn.experiment.data.samples import MEBIBYTE
from jaxnn.experiment.errors import UserError
from jaxnn.sweep.members import Member
from jaxnn.sweep.programs import Program

COPIES = 2
"""Of a member's state: itself, and gradients with what a step has under way."""


def cut(
    program: Program, members: Sequence[Member], state: Any, devices: int
) -> list[list[Member]]:
    """Cuts members into chunks whose states fit beside the data.

    Args:
      program: theirs.
      members: those to train.
      state: of one of them.
      devices: number of devices, each with `--device_cache_mb`.

    Raises:
      UserError: not even one fits.
    """
    most = devices * fitting(program, state)
    # Chunks of nearly equal size: no device idles for most of the last.
    count = -(-len(members) // most)
    size, rest = divmod(len(members), count)
    ends = [size * n + min(n, rest) for n in range(count + 1)]
    return [list(members[low:high]) for low, high in itertools.pairwise(ends)]


def fitting(program: Program, state: Any) -> int:
    """Returns how many members fit on a device; raises UserError if none does."""
    budget = program.base.device_cache_mb * MEBIBYTE
    data = program.num_bytes
    table = next(iter(program.learning_rates.values()))
    own = COPIES * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + table.nbytes
    if data + own > budget:
        raise UserError(
            f"--device_cache_mb: data of {data / MEBIBYTE:.3g} MiB and a network of "
            f"{own / MEBIBYTE:.3g} MiB are more than {program.base.device_cache_mb}; "
            "raise it"
        )
    return int((budget - data) // own)

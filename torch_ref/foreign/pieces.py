"""Where each whole tensor lies in the files of a checkpoint.

A whole tensor is a list of pieces, which are views of what the files hold: joined they
are what is read, and what is copied into them is what the files hold when saved.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from jaxnn.experiment.errors import UserError
from torch_ref.deepspeed_files import FLAT, UNFUSED, Shapes
from torch_ref.foreign.opening import Opened

State = Mapping[str, Any]
COUNTER = "step"


class Whole(NamedTuple):
    """A tensor that lies in pieces.

    Attributes:
      shape: of the whole.
      pieces: views, in order; empty ones and padding are left out.
    """

    shape: tuple[int, ...]
    pieces: list[torch.Tensor]

    def read(self) -> torch.Tensor:
        """Returns the whole, float32."""
        flat = torch.cat([piece.detach().flatten() for piece in self.pieces])
        return flat.view(self.shape).float()

    def write(self, values: torch.Tensor) -> None:
        """Puts values into the pieces, rounded to their type."""
        flat, start = values.flatten(), 0
        for piece in self.pieces:
            end = start + piece.numel()
            piece.detach().copy_(flat[start:end].view(piece.shape))
            start = end


def masters(opened: Opened, groups: Sequence[Shapes]) -> dict[str, Whole]:
    """Returns {torch name: master parameter}.

    Args:
      opened: of any stage.
      groups: {torch name: shape} of each of the optimizer's groups.

    Raises:
      UserError: a parameter is not all there.
    """
    held = [flats(optimizer) for optimizer in opened.optimizers]
    if not held[0]:
        # FP32 without ZeRO has no masters beside the parameters.
        module = opened.common["module"]
        names = [name for group in groups for name in group]
        return {n: Whole(tuple(module[n].shape), [module[n]]) for n in names}
    return dict(_cut(opened, groups, held, "masters"))


def moments(opened: Opened, groups: Sequence[Shapes], key: str) -> dict[str, Whole]:
    """Returns {torch name: moment} of those parameters that have it; as `masters`."""
    held = [
        [state.get(key) for state in states(optimizer)]
        for optimizer in opened.optimizers
    ]
    # Without an update there is none; without a gradient one parameter has none.
    return dict(_cut(opened, groups, held, key))


def moment_keys(
    opened: Opened, groups: Sequence[Shapes]
) -> tuple[list[str], list[str]]:
    """Returns keys of what is kept of each entry of parameters, and of the rest."""
    lengths = _lengths(opened, groups)
    fitting: dict[str, bool] = {}
    for state, allowed in zip(states(opened.optimizers[0]), lengths):
        for key, value in state.items():
            if key != COUNTER and isinstance(value, torch.Tensor):
                fits = value.numel() in allowed
                fitting[key] = fitting.get(key, True) and fits
    kept = [key for key, fits in fitting.items() if fits]
    return kept, [key for key in fitting if key not in kept]


def _lengths(opened: Opened, groups: Sequence[Shapes]) -> list[set[int]]:
    """Returns the lengths, with padding or without, that a moment may have."""
    optimizer = opened.optimizers[0]
    held = flats(optimizer)
    if not held:
        return [{math.prod(s)} for group in groups for s in group.values()]
    paddings = optimizer.get("group_paddings") or [0] * len(held)
    return [{f.numel(), f.numel() + pad} for f, pad in zip(held, paddings)]


def flats(optimizer: State) -> list[torch.Tensor]:
    """Returns one rank's masters: one a group, or one a parameter; [] for FP32."""
    for key in FLAT:
        if key in optimizer:
            return list(optimizer[key])
    return [master for group in optimizer.get(UNFUSED, ()) for master in group]


def states(optimizer: State) -> list[State]:
    """Returns one rank's state of each tensor that is updated; {} before an update."""
    base = optimizer.get("base_optimizer_state")
    if isinstance(base, list):
        # Elastic checkpoints, the default before version 0.4.
        return base
    inner = inner_optimizer(optimizer)
    return [
        inner["state"].get(number, {})
        for group in inner["param_groups"]
        for number in group["params"]
    ]


def inner_optimizer(optimizer: State) -> State:
    """Returns the state_dict of the optimizer that DeepSpeed wraps."""
    base = optimizer.get("base_optimizer_state")
    if isinstance(base, Mapping):
        return base
    return optimizer.get("optimizer_state_dict") or optimizer


def _cut(
    opened: Opened,
    groups: Sequence[Shapes],
    ranks: Sequence[Sequence[torch.Tensor | None]],
    what: str,
) -> Iterator[tuple[str, Whole]]:
    """Yields names and whole tensors out of what the ranks hold of each group."""
    paddings = opened.optimizers[0].get("param_alignment_paddings")
    # Without ZeRO, FP32 and what is not fused have a tensor a parameter.
    if not opened.is_zero and len(ranks[0]) != len(groups):
        groups = [{name: shape} for group in groups for name, shape in group.items()]
    if len(ranks[0]) != len(groups):
        raise UserError(
            f"{opened.folder} lists {len(groups)} groups of parameters and holds "
            f"{what} of {len(ranks[0])}; take another checkpoint"
        )
    for number, (group, *held) in enumerate(zip(groups, *ranks)):
        present = [flat for flat in held if flat is not None]
        if len(present) != len(held):
            continue
        spaces = paddings[number] if paddings else [0] * len(group)
        across = opened.stage == 3
        found = _across(group, present) if across else _along(group, present, spaces)
        for name, whole in found:
            count = sum(piece.numel() for piece in whole.pieces)
            if count != math.prod(whole.shape):
                raise UserError(
                    f"{opened.folder} holds {count} of {math.prod(whole.shape)} "
                    f"entries of {name} ({what}); take another checkpoint"
                )
            yield name, whole


def _along(
    group: Shapes, flats: Sequence[torch.Tensor], spaces: Sequence[int]
) -> Iterator[tuple[str, Whole]]:
    """Stages 0 to 2: all parameters end to end, cut among the ranks."""
    start = 0
    for (name, shape), space in zip(group.items(), spaces):
        size = math.prod(shape)
        yield name, Whole(tuple(shape), list(_span(flats, start, size)))
        start += size + space


def _span(
    flats: Sequence[torch.Tensor], start: int, size: int
) -> Iterator[torch.Tensor]:
    """Yields the views that hold `size` entries from `start`, over several tensors."""
    for flat in flats:
        first, last = max(start, 0), min(start + size, flat.numel())
        if first < last:
            # What is not flat is one parameter's own.
            yield flat if flat.ndim != 1 else flat[first:last]
        start -= flat.numel()


def _across(
    group: Shapes, flats: Sequence[torch.Tensor]
) -> Iterator[tuple[str, Whole]]:
    """Stage 3: every parameter is cut among the ranks, the last shares are padded."""
    start = 0
    for name, shape in group.items():
        size = math.prod(shape)
        share = -(-size // len(flats))
        lengths = [min(max(size - share * n, 0), share) for n in range(len(flats))]
        views = [flat[start : start + n] for flat, n in zip(flats, lengths) if n]
        yield name, Whole(tuple(shape), views)
        start += share

"""Many small tensors in few operations: each operation has its price, on a GPU above
all."""

from collections.abc import Iterator, Mapping

import torch

Tensors = Mapping[str, torch.Tensor]

LIMIT = 2**24
"""Numbers in one batch; a larger tensor makes a batch of its own."""


def runs(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Cuts names into runs whose sizes add up to at most `LIMIT`."""
    run: list[str] = []
    total = 0
    for name, size in sizes.items():
        if run and total + size > LIMIT:
            yield run
            run, total = [], 0
        run.append(name)
        total += size
    if run:
        yield run


def flattened(tensors: Tensors) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Yields (names, copy of their tensors one after the other, flat)."""
    alike: dict[object, dict[str, int]] = {}
    for name, tensor in tensors.items():
        sizes = alike.setdefault((tensor.dtype, tensor.device), {})
        sizes[name] = tensor.numel()
    for sizes in alike.values():
        for names in runs(sizes):
            yield names, torch.cat([tensors[n].detach().reshape(-1) for n in names])


def copies(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Copies tensors."""
    found = dict(tensors)
    for names, flat in flattened(tensors):
        pieces = flat.split([tensors[name].numel() for name in names])
        found |= {n: part.view(tensors[n].shape) for n, part in zip(names, pieces)}
    return found

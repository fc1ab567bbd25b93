"""Random weights under which no layer is the identity and no bias is zero."""

import contextlib
from collections.abc import Callable, Iterator

import torch


def randomized(seed: int, build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Builds a module and moves every parameter from its initial value."""
    with seeded(seed):
        module = build()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return module.train()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's generator within the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def tokens(step: int, vocab: int, rows: int = 3, length: int = 12) -> torch.Tensor:
    """Returns ids, [rows, length]."""
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randint(1, vocab, (rows, length), generator=generator)

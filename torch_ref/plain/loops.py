"""Two ways to train: the loop of a tutorial, and the fastest one that stays plain."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from jaxnn.experiment.data import batches
from torch_ref.plain.work import Score, Work, evaluation_batches, score, update

FUSED = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.SGD,
    torch.optim.Adagrad,
)
"""Optimizers of which torch has a fused kernel on CPUs and GPUs."""

Epoch = Callable[[int], tuple[float, Score]]
"""Number of an epoch, from 0 -> (training loss, scores of the test split)."""


def tutorial(work: Work) -> Epoch:
    """The loop of pytorch.org's beginner tutorials: a DataLoader, loss.item() a step.

    Batches are drawn by torch, which is all that makes it another run than `fast`.
    """
    loader = DataLoader(
        TensorDataset(*work.train), work.experiment.batch_size, shuffle=True
    )

    def epoch(number: int) -> tuple[float, Score]:
        work.network.train()
        total, seen = 0.0, 0
        first = number * work.plan[0]
        for step, (inputs, targets) in zip(range(work.plan[number]), loader):
            loss = work.loss(work.network(inputs), targets)
            work.optimizer.zero_grad()
            loss.backward()
            update(work, first + step)
            total += loss.item() * len(inputs)
            seen += len(inputs)
        return total / seen, _scores(work, work.network)

    return epoch


def fast(work: Work, compiled: bool) -> Epoch:
    """Rows gathered by index, a fused optimizer, no look at the loss within an epoch.

    The batches are jaxnn's own. Everything that is compiled or set up at first use is,
    before this returns.

    Args:
      work: what is trained.
      compiled: True for torch.compile, of network and loss together.
    """
    speed_up(work.optimizer)
    forward, network = _forward(work), work.network
    if compiled:
        # Each batch has one of two sizes: one program for each is faster than one for
        # any size.
        forward = torch.compile(forward, dynamic=False)
        network = torch.compile(network, dynamic=False)
    _warm_up(work, forward, network)
    inputs, targets = work.train

    def epoch(number: int) -> tuple[float, Score]:
        work.network.train()
        order = batches.epoch_order(len(inputs), work.experiment.seed, number)
        rows = torch.from_numpy(order).long().to(inputs.device)
        rows = rows.split(work.experiment.batch_size)[: work.plan[number]]
        losses, first = [], number * work.plan[0]
        for step, ids in enumerate(rows):
            loss = forward(inputs[ids], targets[ids])
            loss.backward()
            update(work, first + step)
            work.optimizer.zero_grad()
            losses.append(loss.detach())
        counts = torch.tensor([float(len(ids)) for ids in rows])
        mean = torch.stack(losses).cpu() @ counts / counts.sum()
        return mean.item(), _scores(work, network)

    return epoch


def speed_up(optimizer: torch.optim.Optimizer) -> None:
    """Lets an optimizer update all parameters by one call, where torch can."""
    option = "fused" if isinstance(optimizer, FUSED) else "foreach"
    for group in optimizer.param_groups:
        if option in group:
            group[option] = True


def _forward(work: Work) -> Callable[[Tensor, Tensor], Tensor]:
    def forward(inputs: Tensor, targets: Tensor) -> Tensor:
        return work.loss(work.network(inputs), targets)

    return forward


def _warm_up(work: Work, forward: Callable, network: Any) -> None:
    """Runs every program once; parameters, statistics and seed are put back."""
    before = {k: v.clone() for k, v in work.network.state_dict().items()}
    inputs, targets = work.train
    size, count = work.experiment.batch_size, len(inputs)
    work.network.train()
    for rows in {min(size, count), count % size} - {0}:
        forward(inputs[:rows], targets[:rows]).backward()
    work.network.zero_grad()
    for split in work.evaluated:
        work.network.eval()
        pieces = evaluation_batches(work, *split)
        for piece in {len(x): (x, y) for x, y in pieces}.values():
            score(work, network, *piece)
    work.network.load_state_dict(before)
    torch.manual_seed(work.experiment.seed)


def _scores(work: Work, network: Any) -> Score:
    """Evaluates every split as jaxnn does; returns the scores of the test split."""
    work.network.eval()
    test, *_ = [score(work, network, *split) for split in work.evaluated]
    return test

"""Trains one experiment at several learning rates in PyTorch alone, to measure it.

    python -m torch_ref.plain.rates --flagfile=FILE --rates=1e-3,1e-2 --variant=vmap

Variants: vmap (all networks at once by torch.func.vmap over stacked parameters),
compiled (the same under torch.compile), sequential (one after the other by the fastest
loop of torch_ref.plain). All start from the same parameters and see the same batches
and masks. Writes summary.json and nothing else. Exit code 2 on bad input.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from absl import flags
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from torch_ref.plain import loops, ways
from torch_ref.plain.work import Work, evaluation_batches, prepare, require_supported

VARIANTS = ("vmap", "compiled", "sequential")
Stacked = dict[str, Tensor]
"""Name of a parameter -> [networks, ...]."""


@dataclasses.dataclass
class Networks:
    """Networks that differ by their rate alone.

    Attributes:
      params: parameters.
      first: averages of the gradients.
      second: averages of their squares.
      rates: [networks] learning rates.
      count: updates so far.
    """

    params: Stacked
    first: list[Tensor]
    second: list[Tensor]
    rates: Tensor
    count: int = 0


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> data -> networks -> epochs -> summary."""
    require_supported(experiment)
    command_line.check_known("variant", [values.variant], VARIANTS)
    rates = read_rates(values.rates)
    if values.threads:
        torch.set_num_threads(values.threads)
    data = load_dataset(experiment)
    works = [prepare(experiment.replace(learning_rate=rate), data) for rate in rates]
    with locks.released():
        workdir = artifacts.create_workdir(experiment, "plain")
        if values.variant == "sequential":
            seconds, losses = sequential(works)
        else:
            seconds, losses = batched(works[0], rates, values.variant == "compiled")
        samples = len(data.train_inputs) * len(works[0].plan) * len(rates)
        summary = {
            "experiment": experiment.name,
            "variant": values.variant,
            "steps": sum(works[0].plan) * len(rates),
            "test_loss": min(filter(math.isfinite, losses), default=0.0),
            "train_seconds": seconds,
            "samples_per_second": samples / seconds,
        }
        artifacts.write_summary(workdir, summary)
    print(f"{seconds:.3g} s; files: {workdir}")


def read_rates(texts: list[str]) -> list[float]:
    """Returns the rates of `--rates`; raises UserError on what is none."""
    try:
        rates = [float(text) for text in texts]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise UserError(f"--rates: takes numbers above 0, got {','.join(texts)!r}")
    return rates


def sequential(works: list[Work]) -> tuple[float, list[float]]:
    """Trains one network after the other; returns seconds and test losses."""
    # What is set up at first use is not training.
    epochs = [loops.fast(work, compiled=False) for work in works]
    start = time.perf_counter()
    losses = []
    for work, epoch in zip(works, epochs):
        torch.manual_seed(work.experiment.seed)
        for number in range(len(work.plan)):
            _, test = epoch(number)
        losses.append(test.loss)
    return time.perf_counter() - start, losses


def batched(
    work: Work, rates: list[float], compiled: bool
) -> tuple[float, list[float]]:
    """Trains all networks at once; returns seconds and test losses.

    Raises:
      UserError: the experiment has something that these loops do not do.
    """
    require_plain_adam(work)
    step, evaluate = _steps(work)
    if compiled:
        step = torch.compile(step, dynamic=False)
    start_of = _start(work, rates)
    _epoch(work, start_of, step, evaluate, 0)
    networks = _start(work, rates)
    torch.manual_seed(work.experiment.seed)
    start = time.perf_counter()
    losses = []
    for number in range(len(work.plan)):
        losses = _epoch(work, networks, step, evaluate, number)
    return time.perf_counter() - start, losses


def require_plain_adam(work: Work) -> None:
    """Raises UserError on what `batched` does not do."""
    experiment = work.experiment
    extras = (experiment.l1, experiment.l2, experiment.clip_norm)
    if experiment.optimizer != "adam" or any(extras) or work.rates:
        raise UserError(
            "--optimizer: networks are batched under adam at a constant rate, without "
            "--l1, --l2 and --clip_norm"
        )
    if any(True for _ in work.network.buffers()):
        raise UserError("--normalization: networks are batched without statistics")


def _start(work: Work, rates: list[float]) -> Networks:
    params = {
        name: value.detach().expand(len(rates), *value.shape).clone()
        for name, value in work.network.named_parameters()
    }
    zeros = [torch.zeros_like(value) for value in params.values()]
    device = zeros[0].device
    return Networks(
        params, zeros, [z.clone() for z in zeros], torch.tensor(rates, device=device)
    )


def _steps(work: Work) -> tuple[Callable, Callable]:
    """Returns the gradients and the scores of all networks."""
    network: Any = work.network

    def loss(params: Stacked, x: Tensor, y: Tensor) -> Tensor:
        return work.loss(functional_call(network, params, (x,)), y)

    def scores(params: Stacked, x: Tensor, y: Tensor) -> Tensor:
        outputs = functional_call(network, params, (x,))
        return torch.stack([work.loss(outputs, y), work.metric(outputs, y).mean()])

    # One mask for all networks: they differ by their rate alone.
    gradients = vmap(grad_and_value(loss), (0, None, None), randomness="same")
    return gradients, vmap(scores, (0, None, None))


def _epoch(
    work: Work, networks: Networks, step: Callable, evaluate: Callable, number: int
) -> list[float]:
    """Trains and evaluates an epoch; returns [networks] test losses."""
    inputs, targets = work.train
    order = batches.epoch_order(len(inputs), work.experiment.seed, number)
    rows = torch.from_numpy(order).long().to(inputs.device)
    work.network.train()
    for ids in rows.split(work.experiment.batch_size)[: work.plan[number]]:
        grads, _ = step(networks.params, inputs[ids], targets[ids])
        _adam(work.experiment, networks, list(grads.values()))
    work.network.eval()
    means = [_scores(work, networks, evaluate, *split) for split in work.evaluated]
    return means[0][:, 0].tolist()


@torch.no_grad()
def _scores(
    work: Work, networks: Networks, evaluate: Callable, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Returns [networks, 2] mean loss and metric of a split."""
    pieces = evaluation_batches(work, inputs, targets)
    sums = sum(len(x) * evaluate(networks.params, x, y) for x, y in pieces)
    return torch.as_tensor(sums) / len(inputs)


@torch.no_grad()
def _adam(experiment: Experiment, networks: Networks, grads: list[Tensor]) -> None:
    """Takes one step of Adam, by one call for all tensors where torch has one."""
    b1, b2 = experiment.adam_b1, experiment.adam_b2
    # torch's stubs leave out the calls that its own optimizers are made of.
    every: Any = torch
    networks.count += 1
    every._foreach_lerp_(networks.first, grads, 1 - b1)
    every._foreach_mul_(networks.second, b2)
    every._foreach_addcmul_(networks.second, grads, grads, 1 - b2)
    scale = every._foreach_sqrt(networks.second)
    every._foreach_div_(scale, math.sqrt(1 - b2**networks.count))
    every._foreach_add_(scale, experiment.adam_eps)
    direction = every._foreach_div(networks.first, scale)
    rates = networks.rates / (1 - b1**networks.count)
    shaped = [rates.view(-1, *[1] * (d.ndim - 1)) for d in direction]
    every._foreach_mul_(direction, shaped)
    every._foreach_sub_(list(networks.params.values()), direction)


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags that only this program has."""
    flags.DEFINE_list("rates", [], "Learning rates.", flag_values=values)
    ways.define(values, VARIANTS, "vmap")


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(main, __doc__, default_precision="fp32", define_more=define_more)


if __name__ == "__main__":
    command()

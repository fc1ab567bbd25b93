"""Tests of torch_ref/watch on two ranks under DDP, whose steps are one step.

`python -m tests.torch_ref.watch.ranks_test FOLDER` is one of the ranks.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributed, nn

from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.ports import free_port
from torch_ref import watch

ROWS = 8
X = np.random.default_rng(0).integers(-8, 9, (2, ROWS, 3)).astype(np.float32) / 8
Y = np.random.default_rng(1).integers(-8, 9, (2, ROWS, 2)).astype(np.float32) / 8


def main(folder: pathlib.Path) -> None:
    """Trains this rank's rows in two parts, as DDP's users do."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(0)
    net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(3, 2)))
    optimizer = torch.optim.SGD(net.parameters(), 0.5, momentum=0.5)
    with watch.record(net, folder, 2, optimizer=optimizer):
        for step in range(2):
            for part, rows in enumerate(np.split(np.arange(ROWS), 4)[rank::2]):
                x, y = torch.from_numpy(X[step][rows]), torch.from_numpy(Y[step][rows])
                net.require_backward_grad_sync = part == 1
                (((net(x) - y) ** 2).mean() / 2).backward()
            optimizer.step()
            optimizer.zero_grad()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp") / "trace"
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.torch_ref.watch.ranks_test", folder],
            env={**os.environ, **shared, "RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    return Reader(folder)


@pytest.mark.parametrize("step", range(2))
class TestDdp:
    def test_passes_of_both_ranks(self, trace, step):
        """Microbatches, within them ranks: their rows follow each other."""
        tensors = trace.read(step)
        assert trace.meta["passes"] == 4
        assert trace.meta["accumulation_steps"] == trace.meta["world_size"] == 2
        passes = [select(tensors, f"passes/{number}") for number in range(4)]
        for kind, wanted in (("inputs/input", X), ("targets/0", Y)):
            rows = np.concatenate([one[kind] for one in passes])
            np.testing.assert_array_equal(rows, wanted[step])
        assert [one["weight"] for one in passes] == [0.5] * 4

    def test_loss_and_gradient_are_those_of_the_whole_batch(self, trace, step):
        tensors = trace.read(step)
        weight, bias = (tensors[f"params/0.{n}"].astype(float) for n in WEIGHTS)
        residual = X[step] @ weight.T + bias - Y[step]
        np.testing.assert_allclose(tensors["loss"], np.mean(residual**2), 1e-6)
        wanted = {
            "grads/0.weight": residual.T @ X[step] / ROWS,
            "grads/0.bias": residual.mean(axis=0),
        }
        for name, gradient in wanted.items():
            np.testing.assert_allclose(tensors[name], gradient, 1e-5, 1e-7)

    def test_update(self, trace, step):
        tensors = trace.read(step)
        for name in (f"0.{n}" for n in WEIGHTS):
            momentum = 0.5 * tensors[f"moments/first/{name}"] + tensors[f"grads/{name}"]
            np.testing.assert_allclose(
                tensors[f"updated_moments/first/{name}"], momentum, 1e-6, 1e-8
            )
            np.testing.assert_allclose(
                tensors[f"updated/{name}"],
                tensors[f"params/{name}"] - 0.5 * momentum,
                1e-6,
                1e-7,
            )


WEIGHTS = ("weight", "bias")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

"""Tests of causes/running_statistics.py: flax's batch norm beside torch's."""

import flax.linen as nn
import optax
import pytest
import torch

from jaxnn.experiment.files.trace import Reader
from parity import own
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.port import Port

STEPS, ROWS, FEATURES, UNITS = 3, 16, 5, 8


class Net(nn.Module):
    momentum: float

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(UNITS, name="0")(x)
        return nn.BatchNorm(
            use_running_average=not train, momentum=self.momentum, name="1"
        )(x)


def loss(outputs, target):
    return ((outputs - target) ** 2).mean()


def convert(state):
    norm = {"scale": state["1.weight"], "bias": state["1.bias"]}
    stats = {"mean": state["1.running_mean"], "var": state["1.running_var"]}
    dense = {"kernel": state["0.weight"].T, "bias": state["0.bias"]}
    return {"params": {"0": dense, "1": norm}, "batch_stats": {"1": stats}}


def recorded(folder, steps=STEPS, spoil=lambda norm: None):
    """Records a batch norm that keeps 0.9; `spoil` runs before every update."""
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(UNITS)
    net = torch.nn.Sequential(torch.nn.Linear(FEATURES, UNITS), norm)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with own.record(net, folder, steps, optimizer=optimizer):
        for _ in range(steps):
            x, target = torch.randn(ROWS, FEATURES), torch.randn(ROWS, UNITS)
            optimizer.zero_grad()
            ((net(x) - target) ** 2).mean().backward()
            spoil(norm)
            optimizer.step()
    return Reader(folder)


def explanations(trace, momentum):
    with of_a_port():
        port = Port(trace, Net(momentum), loss, optax.sgd(0.1), convert)
        found = judgement(port, 8.0)
    assert found.verdict.first_divergence.quantity == "batch_stats"
    return found.explanations


COUNT = "variances are divided by n - 1 = 15, yours by n = 16"
KEPT = "running statistics keep 0.9 of their old value, yours 0.99"


@pytest.mark.parametrize(
    ("momentum", "label", "text"),
    [
        (0.9, "variance_count", COUNT),
        (0.99, "norm_momentum + variance_count", f"{KEPT}; {COUNT}"),
    ],
)
def test_what_flax_does_is_named(tmp_path, momentum, label, text):
    (best,) = explanations(recorded(tmp_path / "t"), momentum)
    assert (best.label, best.text, best.explains) == (label, text, True)


def spoiled(norm):
    with torch.no_grad():
        norm.running_var.mul_(torch.linspace(0.9, 1.1, UNITS))


@pytest.mark.parametrize(("steps", "spoil"), [(STEPS, spoiled), (1, lambda norm: None)])
def test_what_does_not_show_is_not_named(tmp_path, steps, spoil):
    assert not explanations(recorded(tmp_path / "t", steps, spoil), 0.99)

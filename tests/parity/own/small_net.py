"""A small network in PyTorch and its port, recorded with something planted."""

from unittest import mock

import flax.linen as nn
import optax
import torch

from jaxnn.experiment.files.trace import Reader, Writer
from parity import own
from parity.own import port as port_module
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.passes import Objective
from parity.own.port import Port

STEPS, ROWS, FEATURES, HIDDEN, CLASSES = 5, 16, 6, 12, 3
RATE = 0.01


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(FEATURES, HIDDEN)
        self.norm = torch.nn.LayerNorm(HIDDEN)
        self.gelu = torch.nn.GELU()
        self.out = torch.nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.out(self.gelu(self.norm(self.hidden(x))))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense(HIDDEN, name="hidden")(x)
        normal = nn.LayerNorm(epsilon=1e-5, name="norm")(hidden)
        return nn.Dense(CLASSES, name="out")(nn.gelu(normal, approximate=False))


def loss(outputs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def convert(state):
    return {
        "hidden": _dense(state, "hidden"),
        "norm": {"scale": state["norm.weight"], "bias": state["norm.bias"]},
        "out": _dense(state, "out"),
    }


def _dense(state, name):
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


def adamw(params, **changes):
    given = dict(lr=RATE, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.1) | changes
    return torch.optim.AdamW(params, **given)


OWN = optax.adamw(RATE, 0.9, 0.999, eps=1e-3, weight_decay=0.1)


def record(
    folder,
    optimizer=adamw,
    between=None,
    plant=None,
    factor=1.0,
    after=None,
    parts=1,
    steps=STEPS,
    batch=None,
    dtype=torch.float32,
):
    """Records a training.

    Args:
      folder: of the trace.
      optimizer: parameters -> torch's optimizer.
      between: (net, optimizer, step), called between backward pass and update.
      plant: (net), called before training.
      factor: multiplies the loss.
      after: (net, optimizer, step), called after the update.
      parts: microbatches of a step.
      steps: to be recorded.
      batch: (step, part) -> seed of its samples; None: all are different.
      dtype: of the network and its samples.
    """
    torch.manual_seed(0)
    net = TorchNet()
    # No bias of zero, no scale of one: they would hide decay.
    with torch.no_grad():
        for param in net.parameters():
            param.add_(0.3 * torch.randn_like(param))
    net.to(dtype)
    if plant:
        plant(net)
    made = optimizer(net.parameters())
    with own.record(net, folder, steps=steps, optimizer=made):
        for step in range(steps):
            made.zero_grad()
            for part in range(parts):
                if batch:
                    torch.manual_seed(batch(step, part))
                x, labels = torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,))
                cost = torch.nn.functional.cross_entropy(net(x.to(dtype)), labels)
                (cost * factor / parts).backward()
            if between:
                between(net, made, step)
            made.step()
            if after:
                after(net, made, step)
    return folder


def rewritten(folder, into, change, **meta):
    """Copies a trace; change(number, step) -> step, `meta` replaces entries."""
    trace = Reader(folder)
    writer = Writer(into, "full", trace.meta | meta)
    for number in range(len(trace)):
        writer.write(number, change(number, trace.read(number)))
    return into


SHARED: dict[tuple[str, ...], Objective] = {}


def _shared(network, loss, trained):
    """Returns what the first such port of a session has compiled already."""
    return SHARED.setdefault(tuple(trained), Objective(network, loss, trained))


def port_of(folder, optimizer=OWN, convert=convert):
    with mock.patch.object(port_module, "Objective", _shared):
        port = Port(Reader(folder), Net(), loss, optimizer, convert)
    # Its layers were looked at when it was traced.
    port.network = port.objective._network
    return port


def judged(folder, optimizer=OWN, **changed):
    with of_a_port():
        return judgement(port_of(folder, optimizer, **changed), 8.0)

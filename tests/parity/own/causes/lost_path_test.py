"""Tests of causes/lost_path.py: a tied embedding that learns by one use alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional

from jaxnn.experiment.files.trace import Reader
from parity import own
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.networks.uses import parted
from parity.own.port import Port

VOCAB, WIDTH = 7, 4


class TorchNet(torch.nn.Module):
    """A tied head; `looked` and `multiplied` are put on the two uses of its weight."""

    def __init__(self, looked, multiplied):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, WIDTH)
        self.looked, self.multiplied = looked, multiplied

    def forward(self, ids):
        rows = functional.embedding(ids, self.looked(self.embed.weight))
        return torch.tanh(rows) @ self.multiplied(self.embed.weight).T


class Net(nn.Module):
    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(VOCAB, WIDTH, name="embed")
        return embed.attend(jnp.tanh(embed(ids)))


def loss(outputs, ids):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, ids).mean()


def explanations(folder, looked, multiplied):
    torch.manual_seed(0)
    net = TorchNet(looked, multiplied)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with own.record(net, folder, 1, optimizer=optimizer):
        ids = torch.arange(VOCAB)
        functional.cross_entropy(net(ids), ids).backward()
        optimizer.step()

    def convert(state):
        return {"embed": {"embedding": state["embed.weight"]}}

    with of_a_port():
        port = Port(Reader(folder), Net(), loss, optax.sgd(0.1), convert)
        found = judgement(port, 8.0)
    assert found.verdict.first_divergence.quantity == "grads"
    return found.explanations


def whole(weight):
    return weight


def a_tenth(weight):
    return weight.detach() + 0.1 * (weight - weight.detach())


@pytest.mark.parametrize(
    ("uses", "lost"),
    [
        ((whole, torch.Tensor.detach), "product"),
        ((torch.Tensor.detach, whole), "lookup"),
    ],
)
def test_names_the_use_that_is_lost(tmp_path, uses, lost):
    (best,) = explanations(tmp_path / "t", *uses)
    assert (best.label, best.explains) == ("lost_gradient_path", True)
    assert f"lacks what comes by its {lost}; yours comes by 2 uses" in best.text


def test_a_share_of_a_use_is_not_named(tmp_path):
    assert not explanations(tmp_path / "t", whole, a_tenth)


def test_parts_add_up_to_the_gradient():
    def function(leaves, x):
        w = leaves["w"]
        return jnp.sum(jax.jit(jnp.tanh)(w @ x)) + jnp.sum(w.T * w.T)

    leaves, x = {"w": np.eye(3, dtype=np.float32) * 2}, np.ones(3, np.float32)
    uses = {}
    parts = jax.grad(parted(function, "w", uses))({"w": np.stack([leaves["w"]] * 4)}, x)
    expected = jax.grad(function)(leaves, x)
    np.testing.assert_allclose(parts["w"].sum(0), expected["w"], 1e-6)
    assert uses == {0: "dot_general", 1: "mul", 2: "mul"}

"""A branch that every other step leaves out, under torch's own optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import torch

from jaxnn.experiment.files.trace import Reader
from parity import own
from parity.own.environment import of_a_port
from parity.own.judge_port import judgement
from parity.own.port import Port

STEPS, ROWS, FEATURES = 4, 8, 5
RATE = 0.01


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = torch.nn.Linear(FEATURES, FEATURES)
        self.branch = torch.nn.Linear(FEATURES, FEATURES)

    def forward(self, x, wide):
        h = self.plain(x)
        return h + self.branch(x) if wide else h


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, wide):
        h = nn.Dense(FEATURES, name="plain")(x)
        return h + jnp.where(wide, nn.Dense(FEATURES, name="branch")(x), 0)


def loss(outputs):
    return jnp.mean(jnp.square(outputs))


def convert(state):
    return {
        name: {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}
        for name in ("plain", "branch")
    }


def record(folder):
    torch.manual_seed(0)
    net = TorchNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, eps=1e-3)
    with own.record(net, folder, steps=STEPS, optimizer=optimizer):
        for step in range(STEPS):
            optimizer.zero_grad()
            x = torch.randn(ROWS, FEATURES)
            net(x, wide=step % 2 == 0).square().mean().backward()
            optimizer.step()
    return folder


class TestLeftAlone:
    def test_is_named_with_its_tensors(self, tmp_path):
        with of_a_port():
            trace = Reader(record(tmp_path / "t"))
            port = Port(trace, Net(), loss, optax.adam(RATE, eps=1e-3), convert)
            found = judgement(port, 8.0)
        first = found.verdict.first_divergence
        assert first.step == 1
        assert "branch" in first.tensor
        (best,) = found.explanations
        assert best.label == "unused_left_alone"
        assert best.explains
        assert "branch/kernel" in best.text
        assert "plain" not in best.text

    def test_an_optimizer_that_leaves_them_is_at_parity(self, tmp_path):
        adam = when_used(optax.adam(RATE, eps=1e-3))
        optimizer = optax.multi_transform({"plain": adam, "branch": adam}, by_layer)
        with of_a_port():
            trace = Reader(record(tmp_path / "t"))
            found = judgement(Port(trace, Net(), loss, optimizer, convert), 8.0)
        assert found.verdict.is_parity, found.verdict.first_divergence


def by_layer(params):
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key, params)


def when_used(inner):
    """Leaves parameters and state where all gradients are zero, as torch does."""

    def update(grads, state, params):
        updates, after = inner.update(grads, state, params)
        used = jnp.any(
            jnp.array([jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads)])
        )

        def keep(new, old):
            return jnp.where(used, new, old)

        nothing = jax.tree.map(jnp.zeros_like, updates)
        return jax.tree.map(keep, updates, nothing), jax.tree.map(keep, after, state)

    return optax.GradientTransformation(inner.init, update)

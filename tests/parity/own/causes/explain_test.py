"""What a divergence from a port is said to come from: recordings of a small network
that PyTorch trained in another way than the port says."""

import contextlib

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

from parity.judging.explanation import sentence
from parity.own.environment import of_a_port
from tests.parity.own.small_net import FEATURES, RATE, Net, adamw, judged, record


def clip(net, made, step):
    torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)


def halve_the_third(net, made, step):
    for param in net.parameters():
        param.grad.mul_(0.5 if step == 2 else 1)


def double_the_rate(net, made, step):
    made.param_groups[0]["lr"] = RATE * (2 if step >= 2 else 1)


def l2(params):
    return torch.optim.Adam(params, lr=RATE, eps=1e-3, weight_decay=0.1)


def sgd(params):
    return torch.optim.SGD(params, lr=RATE, momentum=0.9)


OPTIMIZERS = {
    "second_moment_decay": dict(optimizer=lambda p: adamw(p, betas=(0.9, 0.99))),
    "first_moment_decay": dict(optimizer=lambda p: adamw(p, betas=(0.8, 0.999))),
    "eps": dict(optimizer=lambda p: adamw(p, eps=1e-4)),
    "decay": dict(optimizer=lambda p: adamw(p, weight_decay=0.5)),
    "decay_kind": dict(optimizer=l2),
    "rate": dict(between=double_the_rate),
    "clipping": dict(between=clip),
    "gradient_factor": dict(between=halve_the_third),
}


class TestOptimizers:
    def test_nothing_is_said_of_a_clean_run(self, tmp_path):
        found = judged(record(tmp_path / "t"))
        assert found.verdict.is_parity
        assert found.explanations is None

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_what_was_planted_is_named(self, tmp_path, name):
        found = judged(record(tmp_path / "t", **OPTIMIZERS[name]))
        (best,) = found.explanations
        assert best.label == name
        assert best.explains

    def test_momentum(self, tmp_path):
        found = judged(record(tmp_path / "t", sgd), optax.sgd(RATE, momentum=0.8))
        (best,) = found.explanations
        assert best.label == "first_moment_decay"
        assert "0.9" in best.text
        assert "0.8" in best.text

    def test_both_figures_and_the_tensors_are_told(self, tmp_path):
        def masked(params):
            params = list(params)
            biases = [p for p in params if p.ndim == 1]
            matrices = [p for p in params if p.ndim == 2]
            groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
            return torch.optim.AdamW(groups, lr=RATE, eps=1e-3, weight_decay=0.1)

        found = judged(record(tmp_path / "t", masked))
        (best,) = found.explanations
        assert best.label == "decay"
        assert "hidden/bias" in best.text
        assert "kernel" not in best.text


def half(folder):
    return record(folder, dtype=torch.bfloat16, steps=3)


class TestHalfMasters:
    """MISMATCHES D5's opposite: no float32 masters at all."""

    def test_are_named(self, tmp_path):
        (best,) = judged(half(tmp_path / "t")).explanations
        assert best.label == "half_precision_masters"
        assert best.explains

    def test_not_where_something_else_differs_too(self, tmp_path):
        other = optax.adamw(2 * RATE, eps=1e-3, weight_decay=0.1)
        found = judged(half(tmp_path / "t"), other).explanations
        assert not [one for one in found if one.explains]


class TestGradients:
    def test_a_factor_on_the_loss(self, tmp_path):
        found = judged(record(tmp_path / "t", factor=0.25))
        (best,) = found.explanations
        assert best.label == "gradient_factor"
        assert "0.25" in best.text
        assert best.explains

    def test_a_path_without_a_gradient(self, tmp_path):
        def plant(net):
            net.hidden.register_forward_hook(lambda layer, args, out: out.detach())

        found = judged(record(tmp_path / "t", plant=plant))
        (best,) = found.explanations
        # Its two tensors have no gradient at all, which is a gradient of zero; nor does
        # torch let them decay then.
        assert best.label == "zero_gradients + unused_left_alone"
        assert best.explains
        assert "hidden/kernel" in best.text


class TestLayers:
    def test_epsilon_of_a_norm(self, tmp_path):
        def plant(net):
            net.norm.eps = 1e-3

        found = judged(record(tmp_path / "t", plant=plant))
        assert found.verdict.first_divergence.tensor == "norm"
        (best,) = found.explanations
        assert best.label == "norm_epsilon"
        assert "0.001" in best.text

    def test_form_of_gelu(self, tmp_path):
        def plant(net):
            net.gelu.approximate = "tanh"

        found = judged(record(tmp_path / "t", plant=plant))
        assert found.verdict.first_divergence.tensor == "out"
        (best,) = found.explanations
        assert best.label == "gelu_form"
        assert "tanh" in best.text


def scaled_output(name, factor):
    def plant(net):
        layer = net.get_submodule(name)
        layer.register_forward_hook(lambda layer, args, out: out * factor)

    return plant


def shifted_output(name, shift):
    def plant(net):
        layer = net.get_submodule(name)
        layer.register_forward_hook(lambda layer, args, out: out + shift)

    return plant


UNKNOWN = [
    (plant, name, size)
    for plant in (scaled_output, shifted_output)
    for name in ("hidden", "norm", "gelu", "out")
    for size in (1e-4, 1e-2, 1.0)
]


class TestUnknown:
    """Differences that nothing here holds: no name is better than a wrong one."""

    @pytest.mark.parametrize(("plant", "name", "size"), UNKNOWN)
    def test_of_layers(self, tmp_path, plant, name, size):
        value = 1 + size if plant is scaled_output else size
        found = judged(record(tmp_path / "t", plant=plant(name, value)))
        if found.verdict.is_parity:
            # A constant added to all logits changes nothing.
            assert (plant, name) in [
                (shifted_output, "out"),
                (shifted_output, "hidden"),
            ]
            return
        assert not [e.label for e in found.explanations or () if e.explains]

    @pytest.mark.parametrize("size", [1e-3, 1e-1])
    def test_of_updates(self, tmp_path, size):
        class Noisy(torch.optim.AdamW):
            def step(self, closure=None):
                super().step(closure)
                with torch.no_grad():
                    for param in self.param_groups[0]["params"]:
                        noise = torch.randn_like(param)
                        param.mul_(1 + size * RATE * noise)

        def noisy(params):
            return Noisy(params, lr=RATE, eps=1e-3, weight_decay=0.1)

        found = judged(record(tmp_path / "t", noisy))
        assert not [e.label for e in found.explanations or () if e.explains]


def test_the_sentence_says_what_is_left(tmp_path):
    with contextlib.suppress(ValueError):
        found = judged(record(tmp_path / "t", OPTIMIZERS["eps"]["optimizer"]))
        assert sentence(found.explanations).startswith("explained by eps: ")


def test_a_network_in_half_precision_needs_no_other_port():
    """The port of these tests computes in the dtype of what it is given."""
    params = Net().init(jax.random.key(0), jnp.ones((2, FEATURES)))
    with of_a_port():
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        out = Net().apply(half, jnp.ones((2, FEATURES), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16

"""Tests of torch_ref/watch on plain PyTorch: what a loop does without an engine."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from torch_ref import watch

X = torch.arange(12, dtype=torch.float32).reshape(4, 3) / 8 - 0.5
Y = torch.arange(8, dtype=torch.float32).reshape(4, 2) / 4


class Net(nn.Module):
    """Two layers, batch normalization and dropout; `extra` is used when asked for."""

    def __init__(self, rate=0.5):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm, self.extra = nn.BatchNorm1d(4), nn.Linear(2, 2)
        self.drop = nn.Dropout(rate)

    def forward(self, x, options=None, *, more=False):
        h = self.drop(torch.relu(self.norm(self.first(x))))
        h = functional.dropout(h, 0.25, self.training)
        y = self.last(h)
        return {"y": self.extra(y) if more else y, "hidden": h}


def train(net, optimizer, steps=3, more=(), pause=lambda: None, **kwargs):
    """Adam's loop of a user; returns the losses."""
    losses = []
    for step in range(steps):
        output = net(X, {"mask": [X > 0], "scale": 2}, more=step in more)
        loss = functional.mse_loss(output["y"], Y.view(4, 2)) * 0.5
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        optimizer.step()
        losses.append(loss.item())
        pause()
    return losses


def adam(net, **kwargs):
    return torch.optim.Adam(net.parameters(), lr=0.125, **kwargs)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A trace of three steps, of which the second uses `extra`, and the losses."""
    folder = tmp_path_factory.mktemp("plain") / "trace"
    net = Net()
    optimizer = adam(net)
    with watch.record(net, folder, 3, optimizer=optimizer):
        losses = train(net, optimizer, more=(1,))
    return Reader(folder), losses


class TestStep:
    def test_watching_changes_no_bit(self, recorded):
        """Masks are drawn twice; the random state is what it was."""
        net = Net()
        assert train(net, adam(net), more=(1,)) == recorded[1]

    def test_loss_and_its_weight(self, recorded):
        trace, losses = recorded
        for step, loss in enumerate(losses):
            tensors = trace.read(step)
            assert tensors["passes/0/loss"] == np.float32(loss) == tensors["loss"]
            assert tensors["passes/0/weight"] == 1

    def test_gradients_are_those_before_clipping(self, recorded):
        """Of the loss, recomputed from what was recorded."""
        tensors = recorded[0].read(0)
        net = Net(0.0)
        h = torch.relu(net.norm(net.first(X)))
        for number, rate in (("0", 0.5), ("1", 0.25)):
            mask = torch.from_numpy(tensors[f"passes/0/masks/{number}"])
            h = torch.where(mask, h / (1 - rate), 0)
        (functional.mse_loss(net.last(h), Y) * 0.5).backward()
        grads = select(tensors, "grads")
        for name, param in net.named_parameters():
            if param.grad is None:
                assert name not in grads
            else:
                # Two orders of the same few sums.
                np.testing.assert_allclose(grads[name], param.grad, 1e-5, 1e-7)

    def test_inputs_by_name(self, recorded):
        inputs = select(recorded[0].read(1), "passes/0/inputs")
        assert sorted(inputs) == ["more", "options.mask.0", "options.scale", "x"]
        np.testing.assert_array_equal(inputs["x"], X)
        assert inputs["options.mask.0"].dtype == bool
        assert inputs["options.scale"] == 2
        assert inputs["more"].dtype == bool

    def test_target_is_the_source_of_its_view(self, recorded):
        targets = select(recorded[0].read(0), "passes/0/targets")
        assert list(targets) == ["0"]
        np.testing.assert_array_equal(targets["0"], Y)

    def test_masks_are_those_of_the_output(self, recorded):
        tensors = recorded[0].read(0)
        out = tensors["passes/0/activations/drop"]
        assert not out[~tensors["passes/0/masks/0"]].any()
        assert recorded[0].meta["unreachable_dropout"] == []

    def test_buffers_before_and_after(self, recorded):
        first, second = recorded[0].read(0), recorded[0].read(1)
        assert first["buffers/norm.num_batches_tracked"] == 0
        assert first["updated_buffers/norm.num_batches_tracked"] == 1
        np.testing.assert_array_equal(
            first["updated_buffers/norm.running_var"],
            second["buffers/norm.running_var"],
        )

    def test_an_unused_layer_lags_behind(self, recorded):
        """torch's Adam does not step it; what it starts from are zeros."""
        trace = recorded[0]
        assert not [name for name in select(trace.read(0), "grads") if "extra" in name]
        assert "grads/extra.weight" in trace.read(1)
        assert select(trace.read(0), "counters") == {}
        assert trace.read(1)["counters/extra.weight"] == 0
        assert trace.read(2)["counters/extra.weight"] == 1
        assert not trace.read(1)["moments/first/extra.weight"].any()
        assert [int(trace.read(step)["optimizer_step"]) for step in range(3)] == [
            0,
            1,
            2,
        ]

    def test_layers_in_the_order_of_their_ends(self, recorded):
        order = recorded[0].meta["order"]["activations"]
        assert order == ["first", "norm", "drop", "last"]

    def test_groups(self, recorded):
        groups = select(recorded[0].read(0), "groups")
        assert groups["0/lr"] == 0.125
        np.testing.assert_array_equal(groups["0/betas"], [0.9, 0.999])
        assert recorded[0].meta["zero_stage"] is None
        assert recorded[0].meta["stack"] == "torch"


class TestPasses:
    def test_accumulation(self, tmp_path):
        """Two backward passes make one step; one without a backward is dropped."""
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net(X)
            for rows in (slice(2), slice(2, 4)):
                (functional.mse_loss(net(X[rows]), Y[rows]) / 2).backward()
            optimizer.step()
        trace = Reader(tmp_path / "t")
        tensors = trace.read(0)
        assert trace.meta["passes"] == trace.meta["accumulation_steps"] == 2
        np.testing.assert_array_equal(tensors["passes/1/inputs/input"], X[2:])
        np.testing.assert_allclose(
            tensors["updated/bias"],
            tensors["params/bias"] - 0.5 * tensors["grads/bias"],
            1e-6,
        )

    def test_evaluation_and_thrown_away_gradients_are_none(self, tmp_path):
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net.eval()
            net(X)
            net.train()
            net(X).sum().backward()
            optimizer.zero_grad()
            net(X[:1]).sum().backward()
            optimizer.step()
        assert Reader(tmp_path / "t").meta["passes"] == 1

    def test_one_loss_of_two_passes_is_told(self, tmp_path):
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            (net(X) - net(-X)).pow(2).sum().backward()
            optimizer.step()
        assert (
            "from 2 forward passes" in Reader(tmp_path / "t").meta["absent"]["passes"]
        )

    def test_a_step_without_a_pass_is_told(self, tmp_path):
        """The layers were called past the model."""
        net = Net()
        optimizer = adam(net)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net.first(X).sum().backward()
            optimizer.step()
        trace = Reader(tmp_path / "t")
        assert "no forward pass" in trace.meta["absent"]["passes"]
        assert "updated/first.weight" in trace.read(0)

    def test_another_models_training_is_none(self, tmp_path):
        """As of a discriminator between a generator's forward pass and backward."""
        net, other = nn.Linear(3, 2), nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            output = net(X)
            other(output.detach()).sum().backward()
            output.sum().backward()
            optimizer.step()
        tensors = Reader(tmp_path / "t").read(0)
        assert tensors["loss"] == np.float32(output.detach().double().sum())
        np.testing.assert_array_equal(tensors["grads/bias"], [4.0, 4.0])

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpointed_layers_count_once(self, tmp_path, reentrant):
        class Checkpointed(Net):
            def forward(self, x):
                h = self.first(x)
                return checkpoint(self._rest, h, use_reentrant=reentrant)

            def _rest(self, h):
                return self.last(self.drop(h))

        net = Checkpointed()
        optimizer = adam(net)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net(X).sum().backward()
            optimizer.step()
        tensors = Reader(tmp_path / "t").read(0)
        assert list(select(tensors, "passes/0/masks")) == ["0"]
        assert "grads/last.weight" in tensors
        assert "grads/first.weight" in tensors

    def test_large_inputs_are_digests(self, tmp_path):
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer, limit=8):
            net(X).sum().backward()
            optimizer.step()
        tensors = Reader(tmp_path / "t").read(0)
        assert tensors["passes/0/digests/input"].shape == (32,)
        assert not select(tensors, "passes/0/inputs")


class TestScaler:
    """torch's GradScaler, whose second step meets an infinity."""

    @pytest.fixture
    def trace(self, tmp_path):
        folder = tmp_path / "t"
        net = nn.Linear(3, 2)
        optimizer = adam(net)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        with watch.record(net, folder, 3, optimizer=optimizer, scaler=scaler):
            for factor in (1.0, torch.inf, 1.0):
                optimizer.zero_grad()
                loss = (net(X) * factor).sum()
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        assert "step" not in vars(scaler)
        return Reader(folder)

    def test_gradients_and_losses_are_unscaled(self, trace):
        tensors = trace.read(0)
        np.testing.assert_array_equal(tensors["grads/bias"], [4.0, 4.0])
        assert tensors["loss_scale"] == 8
        assert abs(tensors["loss"]) < 8

    def test_an_overflow_changes_nothing(self, trace):
        skipped, after = trace.read(1), trace.read(2)
        assert [bool(trace.read(step)["skipped"]) for step in range(3)] == [
            False,
            True,
            False,
        ]
        assert skipped["grad_norm"] == np.inf
        assert skipped["optimizer_step"] == after["optimizer_step"] == 1
        for name, value in select(skipped, "updated").items():
            np.testing.assert_array_equal(value, skipped[f"params/{name}"])
        assert after["loss_scale"] == 4


class TestUnreachable:
    @pytest.mark.parametrize(
        ("layer", "name"),
        [
            (nn.GRU(3, 3, num_layers=2, dropout=0.5), "inner"),
            (nn.AlphaDropout(0.5), "alpha_dropout"),
            (nn.TransformerEncoderLayer(3, 1, 4), "multi_head_attention_forward"),
        ],
    )
    def test_is_told(self, tmp_path, capsys, layer, name):
        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.last = layer, nn.Linear(3, 3)

            def forward(self, x):
                output = self.inner(x)
                return self.last(output[0] if isinstance(output, tuple) else output)

        net = Outer()
        optimizer = adam(net)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net(X).sum().backward()
            optimizer.step()
        assert Reader(tmp_path / "t").meta["unreachable_dropout"] == [name]
        assert capsys.readouterr().err.count(f"the dropout of {name} cannot") == 1

    def test_attention(self, tmp_path):
        class Attention(nn.Linear):
            def forward(self, x):
                q = super().forward(x)[None]
                return functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)

        net = Attention(3, 3)
        optimizer = adam(net)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer):
            net(X).sum().backward()
            optimizer.step()
        meta = Reader(tmp_path / "t").meta
        assert meta["unreachable_dropout"] == ["scaled_dot_product_attention"]


class TestContext:
    def test_ends_with_the_last_step(self, tmp_path):
        net, left = Net(), []
        optimizer = adam(net)
        original = torch.autograd.backward

        def look():
            hooked = torch.autograd.backward is not original
            mode = torch.overrides._get_current_function_mode()
            left.append(hooked or mode is not None or bool(net._forward_hooks))

        with watch.record(net, tmp_path / "t", 2, optimizer=optimizer):
            train(net, optimizer, pause=look)
        assert left == [True, False, False]
        assert len(Reader(tmp_path / "t")) == 2

    def test_an_exception_leaves_whole_steps(self, tmp_path):
        net = Net()
        optimizer = adam(net)
        original = torch.autograd.backward

        def break_off():
            with watch.record(net, tmp_path / "t", 9, optimizer=optimizer):
                train(net, optimizer, 1)
                net(X)
                raise RuntimeError("of the loop")

        with pytest.raises(RuntimeError, match="of the loop"):
            break_off()
        assert len(Reader(tmp_path / "t")) == 1
        assert torch.autograd.backward is original
        assert torch.overrides._get_current_function_mode() is None
        assert not optimizer._optimizer_step_pre_hooks

    def test_goes_on_where_a_trace_ends(self, tmp_path):
        net = Net()
        optimizer = adam(net)
        with watch.record(net, tmp_path / "t", 2, optimizer=optimizer, first_step=5):
            train(net, optimizer, 2)
        with watch.record(net, tmp_path / "t", 1, optimizer=optimizer, first_step=7):
            train(net, optimizer, 1)
        trace = Reader(tmp_path / "t")
        assert len(trace) == 3
        assert trace.meta["first_step"] == 5
        assert trace.read(2)["optimizer_step"] == 2


class TestErrors:
    """One line each, and nothing stays hooked."""

    def refused(self, *args, **kwargs) -> str:
        with pytest.raises(UserError) as caught, watch.record(*args, **kwargs):
            pass
        assert "\n" not in str(caught.value)
        assert torch.overrides._get_current_function_mode() is None
        return str(caught.value)

    def test_no_step(self, tmp_path):
        net = nn.Linear(3, 2)
        message = self.refused(net, tmp_path / "t", 1, optimizer=adam(net))
        assert "no optimizer step happened" in message
        assert not (tmp_path / "t").exists()

    def test_no_optimizer(self, tmp_path):
        assert "optimizer=..." in self.refused(nn.Linear(3, 2), tmp_path / "t", 1)
        net = nn.Linear(3, 2)
        assert "torch optimizer" in self.refused(net, tmp_path, 1, optimizer=3)

    def test_no_model(self, tmp_path):
        assert "torch module" in self.refused(3, tmp_path / "t", 1)

    def test_no_steps(self, tmp_path):
        assert "steps=0" in self.refused(nn.Linear(3, 2), tmp_path / "t", 0)

    def test_folders_that_hold_something(self, tmp_path):
        net = nn.Linear(3, 2)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        message = self.refused(net, tmp_path / "other", 1, optimizer=adam(net))
        assert "not an empty folder" in message
        with watch.record(net, tmp_path / "t", 1, optimizer=(optimizer := adam(net))):
            net(X).sum().backward()
            optimizer.step()
        assert (
            json.loads((tmp_path / "t" / "meta.json").read_text())["names"] == "torch"
        )
        message = self.refused(net, tmp_path / "t", 1, optimizer=optimizer)
        assert "first_step=0 does not continue" in message

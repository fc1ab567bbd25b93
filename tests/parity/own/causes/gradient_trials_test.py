"""What a loop does to gradients, whatever its network is."""

import numpy as np
import pytest
import torch

from parity.own.causes import layer_trials, parts
from tests.parity.known_faults import on_avx2
from tests.parity.own.small_net import OWN, RATE, adamw, judged, record


@pytest.fixture(autouse=True)
def _no_layer_is_tried(monkeypatch):
    """Each would be compiled; explain_test tries them all."""
    monkeypatch.setattr(layer_trials, "_catalogue", lambda *given: iter(()))


TINY = 1e-30
"""Counted by so little that it is lost, but no zero that throws a pass away."""


def counted(*shares):
    """Multiplies each microbatch's gradient by its share."""

    def plant(net):
        for param in net.parameters():
            calls = iter(range(10**6))
            param.register_hook(
                lambda grad, calls=calls: grad * shares[next(calls) % len(shares)]
            )

    return plant


def told(folder, **planted):
    return judged(record(folder / "t", **planted), OWN).explanations


def of_parts(folder, *shares):
    planted = counted(*(share or TINY for share in shares))
    count = len(shares)
    return told(folder, parts=count, factor=float(count), plant=planted, steps=3)


class TestParts:
    @pytest.mark.parametrize(
        ("shares", "name", "text"),
        [
            ((0, 0, 1), "last_part_only", "only the last of 3 microbatches"),
            ((1, 0, 0), "first_part_only", "only the first of 3"),
            ((1, 0, 1), "parts_left_out", "of 3 microbatches numbers 2 were not"),
            pytest.param(
                (0, 0, 3),
                "last_part_only",
                "counted, and multiplied by 3",
                marks=on_avx2("no explanation"),
            ),
        ],
    )
    def test_those_that_were_not_counted(self, tmp_path, shares, name, text):
        (best,) = of_parts(tmp_path, *shares)
        assert best.label == name
        assert best.explains
        assert text in best.text

    @pytest.mark.parametrize("shares", [(0.5, 1.0, 1.5), (1, 0, 2), (0.3, 1, 1)])
    def test_other_shares_have_no_name(self, tmp_path, shares):
        assert not of_parts(tmp_path, *shares)

    def test_all_of_them_are_at_parity(self, tmp_path):
        assert of_parts(tmp_path, 1, 1) is None

    def test_a_rank(self):
        found = parts._pattern(np.array([1.0, 0.0, 1.0, 0.0]), ranks=2)
        assert found.name == "ranks_left_out"
        assert found.text == "rank 1 was not counted"

    def test_a_single_pass(self):
        found = parts._pattern(np.array([1.0, 0.0, 1.0, 1.0]), ranks=2)
        assert found.name == "passes_left_out"


class Kept(torch.optim.AdamW):
    """Its gradients stay."""

    def zero_grad(self, set_to_none=True):
        pass


def kept(params):
    return Kept(params, lr=RATE, eps=1e-3, weight_decay=0.1)


class Before:
    """Replaces gradients by some of those before; they are recorded so.

    The recorder reads gradients as the backward pass leaves them.
    """

    def __init__(self, share_of_now, share_of_last, delay=1):
        self.shares, self.delay = (share_of_now, share_of_last), delay

    def __call__(self, net):
        now, last = self.shares
        for param in net.parameters():
            held = []

            def hook(grad, held=held):
                held.append(grad)
                if len(held) <= self.delay:
                    return grad
                return now * grad + last * held[-1 - self.delay]

            param.register_hook(hook)


class TestSteps:
    def test_gradients_that_were_not_zeroed(self, tmp_path):
        (best,) = told(tmp_path, optimizer=kept)
        assert best.label == "gradients_not_zeroed"
        assert best.explains

    def test_a_parameter_that_no_optimizer_holds(self, tmp_path):
        def some(params):
            return adamw([param for param in params if param.shape != (12, 6)])

        (best,) = told(tmp_path, optimizer=some)
        assert best.label == "gradients_not_zeroed + still"
        assert "there in hidden/kernel" in best.text
        assert best.explains

    def test_gradients_of_the_step_before(self, tmp_path):
        (best,) = told(tmp_path, plant=Before(0.0, 1.0))
        assert best.label == "gradient_repeated"
        assert best.explains

    @pytest.mark.parametrize(
        "plant",
        [Before(0.5, 0.5), Before(1.0, 0.5), Before(0.0, 1.0, delay=2)],
    )
    def test_other_mixtures_have_no_name(self, tmp_path, plant):
        assert not told(tmp_path, plant=plant)

    def test_weights_of_the_step_before(self, tmp_path):
        stale = Stale(1)
        (best,) = told(tmp_path, plant=stale.put, between=stale.undo)
        assert best.label == "stale_parameters"
        assert best.explains

    def test_weights_of_two_steps_before_have_no_name(self, tmp_path):
        stale = Stale(2)
        assert not told(tmp_path, plant=stale.put, between=stale.undo)


class Stale:
    """Runs forward and backward with the weights of an earlier step."""

    def __init__(self, delay):
        self.delay, self.history = delay, []

    def put(self, net):
        # The first layer is reached after the recorder has read the weights.
        net.hidden.register_forward_pre_hook(lambda *_: self.exchange(net))

    def exchange(self, net):
        self.history.append([p.detach().clone() for p in net.parameters()])
        old = self.history[max(len(self.history) - 1 - self.delay, 0)]
        set_to(net, old)

    def undo(self, net, made, step):
        set_to(net, self.history[-1])


def set_to(net, arrays):
    for param, array in zip(net.parameters(), arrays):
        param.data = array.clone()


def test_a_factor_on_the_loss_and_another_rate(tmp_path):
    def faster(params):
        return adamw(params, lr=2 * RATE)

    (best,) = told(tmp_path, factor=0.25, optimizer=faster)
    assert best.label == "gradient_factor + rate"
    assert best.explains


def test_a_factor_that_leaves_something_is_a_part(tmp_path):
    def plant(net):
        def hook(grad):
            return 0.5 * grad * (1 + 3e-4 * torch.randn_like(grad))

        for param in net.parameters():
            param.register_hook(hook)

    (best,) = told(tmp_path, plant=plant)
    assert best.label == "gradient_factor"
    assert not best.explains


def test_what_holds_at_the_first_step_alone_is_a_part(tmp_path):
    (best,) = told(tmp_path, plant=counted(0.5, 0.25, 1.0, 1.0, 1.0))
    assert best.label == "gradient_factor"
    assert not best.explains

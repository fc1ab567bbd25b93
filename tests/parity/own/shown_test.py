"""A recording that does not show what trained is refused, and training not blamed."""

import ml_dtypes
import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from parity.own import shown
from tests.parity.own.small_net import (
    OWN,
    adamw,
    convert,
    judged,
    record,
    rewritten,
)

BF16 = np.dtype(ml_dtypes.bfloat16)
W = np.array([1 / 3, 0.7, -0.1], np.float32)
READ = W.astype(BF16)
G = np.array([1.0, 2.0, 3.0], np.float32)


def refusal(trace, **changed):
    with pytest.raises(UserError) as caught:
        judged(trace, OWN, **changed)
    text = str(caught.value)
    assert text.startswith("cannot judge: the recording does not show what trained: ")
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Three vectors of it have the same shape."""
    return record(tmp_path_factory.mktemp("shown") / "t", steps=3)


def with_zeros(*kinds):
    def change(number, step):
        zero = np.zeros_like(step["params/out.weight"])
        return step | {f"{kind}/out.weight": zero for kind in kinds}

    return change


class TestRecorded:
    @pytest.mark.parametrize("kinds", [("params", "updated"), ("params",)])
    def test_zeros(self, trace, tmp_path, kinds):
        text = refusal(rewritten(trace, tmp_path / "t", with_zeros(*kinds)))
        assert "params/out.weight is zero at every step, though its gradient" in text

    def test_the_values_of_another(self, trace, tmp_path):
        def change(number, step):
            other = {k: step[f"{k}/norm.bias"] for k in ("params", "updated")}
            return step | {f"{k}/hidden.bias": array for k, array in other.items()}

        text = refusal(rewritten(trace, tmp_path / "t", change))
        assert "norm.bias holds the values of updated/hidden.bias, to the bit" in text

    def test_each_others_values(self, trace, tmp_path):
        def change(number, step):
            names = ("norm.bias", "norm.weight")
            return step | {
                f"{kind}/{a}": step[f"{kind}/{b}"]
                for kind in ("params", "updated")
                for a, b in (names, names[::-1])
            }

        text = refusal(rewritten(trace, tmp_path / "t", change))
        assert "params/norm.weight and params/norm.bias hold each other's" in text


def exchanged(state):
    """A converter that mistakes one vector for another."""
    tree = convert(state)
    scale, bias = tree["norm"]["scale"], tree["norm"]["bias"]
    return {**tree, "norm": {"scale": bias, "bias": scale}}


class TestInnocent:
    """Training and ports that are at fault are told so."""

    def test_a_converter_that_exchanges_two(self, trace):
        found = judged(trace, OWN, convert=exchanged)
        assert not found.verdict.is_parity

    def test_weights_that_training_keeps_at_zero(self, tmp_path):
        def hold(net, made, step):
            net.out.weight.data.zero_()

        found = judged(
            record(tmp_path / "t", plant=lambda n: hold(n, 0, 0), after=hold)
        )
        assert found.explanations[0].names

    def test_another_rate(self, tmp_path):
        found = judged(record(tmp_path / "t", lambda p: adamw(p, lr=0.02)))
        assert found.explanations[0].label == "rate"


def step(updated, forward=READ, grad=G, skipped=False):
    return {
        "params/w": W,
        "updated/w": updated,
        "forward/w": forward,
        "grads/w": grad,
        "skipped": np.bool_(skipped),
    }


class TestIn16Bits:
    def test_masters_that_are_copies(self):
        (found,) = shown.in_16_bits([step(W.astype(BF16).astype(np.float32))], ["w"])
        assert found.startswith("updated/w is in bfloat16 after every update")

    def test_masters_are_not(self):
        assert not list(shown.in_16_bits([step(W)], ["w"]))

    def test_what_has_no_gradient_may_stay(self):
        kept = step(W.astype(BF16).astype(np.float32), grad=0 * G)
        assert not list(shown.in_16_bits([kept], ["w"]))

    def test_a_program_without_copies(self):
        kept = step(W.astype(BF16).astype(np.float32))
        del kept["forward/w"]
        assert not list(shown.in_16_bits([kept], ["w"]))


class TestZeros:
    def test_what_was_read_contradicts_them(self):
        zero = step(0 * W) | {"params/w": 0 * W}
        assert list(shown.zeros([zero], ["w"], gradients_fail=False))

    def test_zeros_that_were_read(self):
        zero = step(0 * W, forward=(0 * W).astype(BF16)) | {"params/w": 0 * W}
        assert not list(shown.zeros([zero], ["w"], gradients_fail=False))


class TestIdentical:
    def pair(self, other, grad, **more):
        return step(W) | {"updated/v": other, "grads/v": grad, **more}

    def test_ties_are_equal(self):
        pair = self.pair(W, 2 * G)
        assert list(shown.identical([pair], ["w", "v"], {}))
        assert not list(shown.identical([pair], ["w", "v"], {"v": "w"}))

    def test_equal_gradients_keep_them_equal(self):
        assert not list(shown.identical([self.pair(W, G)], ["w", "v"], {}))

    def test_constants_are_equal(self):
        pair = self.pair(0 * W + 1, 2 * G) | {"updated/w": 0 * W + 1}
        assert not list(shown.identical([pair], ["w", "v"], {}))


class TestMisplaced:
    def pair(self, w, v):
        read = {"forward/w": READ, "forward/v": (2 * W).astype(BF16)}
        return {"params/w": w, "params/v": v, **read}

    def test_what_was_read_tells_them_apart(self):
        (found, *_) = shown.misplaced([self.pair(2 * W, W)], ["w", "v"])
        assert found.startswith("params/v holds the values of w: rounded they are")

    @pytest.mark.parametrize("w", [W, 3 * W])
    def test_in_their_places_or_of_nobody(self, w):
        assert not list(shown.misplaced([self.pair(w, 2 * W)], ["w", "v"]))

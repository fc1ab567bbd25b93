"""Tests of parity/own/state_dict.py: what a converter does to a recorded state_dict."""

import numpy as np
import pytest
import torch

from jaxnn.experiment.errors import UserError
from parity.own.state_dict import convert_with, state_of

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((2, 3)).astype(np.float32)
STEP = {
    "params/layer.weight": KERNEL,
    "params/layer.bias": RNG.standard_normal(2).astype(np.float32),
    "buffers/norm.running_mean": RNG.standard_normal(2).astype(np.float32),
    "buffers/norm.num_batches_tracked": np.asarray(7),
    "grads/layer.weight": KERNEL,
}
TIES = {"head.weight": "layer.weight"}


def applied(convert):
    """Returns what the map of a converter makes of the recorded state."""
    converted = convert_with(convert, STEP, TIES)
    sources = {n: a for n, a in state_of(STEP).items() if a.dtype.kind == "f"}
    return converted.weights.apply(sources)


class TestStateOf:
    def test_parameters_and_buffers(self):
        assert set(state_of(STEP)) == {
            "layer.weight",
            "layer.bias",
            "norm.running_mean",
            "norm.num_batches_tracked",
        }


class TestConvertWith:
    @pytest.mark.parametrize(
        "turn",
        [
            lambda w: w.T,
            lambda w: w.t(),
            lambda w: w.permute(1, 0),
            lambda w: w.numpy().T,
            lambda w: w.detach().cpu().numpy().transpose(),
            lambda w: torch.transpose(w, 0, 1),
            lambda w: np.asarray(w).T,
            lambda w: w.float().T.contiguous(),
        ],
    )
    def test_for_numpy_or_torch(self, turn):
        found = applied(lambda s: {"kernel": turn(s["layer.weight"])})
        np.testing.assert_array_equal(found["kernel"], KERNEL.T)

    def test_a_tied_name_is_there_as_well(self):
        converted = convert_with(
            lambda s: {"head": s["head.weight"], "embed": s["layer.weight"]}, STEP, TIES
        )
        needs = converted.weights.origins
        assert needs["head"] == needs["embed"] == {"layer.weight"}
        assert converted.weights.repeated

    def test_whole_numbers_are_what_was_recorded(self):
        seen = []

        def convert(state):
            seen.append(int(state["norm.num_batches_tracked"]))
            return {"mean": state["norm.running_mean"]}

        applied(convert)
        assert set(seen) == {7}

    def test_buffers_and_parameters_in_collections(self):
        converted = convert_with(
            lambda s: {
                "params": {"bias": s["layer.bias"]},
                "batch_stats": {"mean": s["norm.running_mean"]},
            },
            STEP,
            {},
        )
        assert converted.structure.names == ["batch_stats/mean", "params/bias"]

    @pytest.mark.parametrize(
        ("convert", "message"),
        [
            (lambda s: {"k": np.abs(s["layer.weight"])}, r"k\[0, 0\] is not an entry"),
            (lambda s: {"k": s["layer.bias"] * s["layer.bias"]}, "is not an entry"),
            (lambda s: {"k": s["other"]}, "it raised KeyError: 'other'"),
            (lambda s: {}, "it returned no arrays"),
            (lambda s: None, "it returned no arrays"),
            (
                lambda s: {"k": s["layer.weight"].transpose(0, 1)},
                "one thing to NumPy arrays and another to torch tensors",
            ),
        ],
    )
    def test_refuses_in_one_line(self, convert, message):
        with pytest.raises(UserError, match=rf"^convert: .*{message}") as caught:
            applied(convert)
        assert "\n" not in str(caught.value)

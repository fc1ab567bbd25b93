"""Tests of parity/own/propose.py: maps by names and shapes, where no converter is."""

import io

import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader
from parity.own import propose
from parity.own.environment import of_a_port
from parity.own.propose import Origin
from parity.own.state_dict import convert_with, state_of
from parity.own.tree import Structure
from tests.parity.own import recorded

FOUND = ("gpt2", "llama", "llama_tied", "nnx_mlp", "resnet")


def proposed(name, folder):
    """Returns the leaves of a port by its proposed and by its own converter."""
    trace = Reader(recorded.record(name, folder / "t", steps=1))
    port, step = recorded.port(name), trace.read(0)
    ties = trace.meta["ties"]
    with of_a_port():
        found = propose.converter(trace, port.model, Console(quiet=True))
    sources = {n: a for n, a in state_of(step).items() if a.dtype.kind in "fV"}
    return [
        convert_with(convert, step, ties).weights.apply(sources)
        for convert in (found, recorded.converter(port))
    ]


class TestConverter:
    @pytest.mark.parametrize("name", FOUND)
    def test_finds_the_ports_own_converter(self, name, tmp_path):
        found, own = proposed(name, tmp_path)
        assert found.keys() == own.keys()
        wrong = [n for n in own if not np.array_equal(found[n], own[n])]
        assert not wrong

    def test_refuses_joined_projections(self, tmp_path):
        with pytest.raises(UserError) as caught:
            proposed("bert", tmp_path)
        assert str(caught.value) == (
            "convert: no tensor of torch fits layer_0/attention/qkv/bias (96,); give "
            "convert(state_dict), which makes it"
        )

    def test_refuses_a_function(self, mlp_trace):
        model = recorded.port("mlp_function").model
        with pytest.raises(UserError, match="a function's parameters have no names"):
            propose.converter(mlp_trace, model, Console(quiet=True))

    def test_prints_a_dict_that_can_be_pasted(self, mlp_trace):
        text = io.StringIO()
        model = recorded.port("nnx_mlp").model
        console = Console(file=text, width=40)
        converter = propose.converter(mlp_trace, model, console)
        printed = text.getvalue().partition("convert = ")[2]
        pasted = propose.from_origins(eval(printed))
        state = state_of(mlp_trace.read(0))
        left, right = converter(state), pasted(state)
        flat = Structure(left).flatten
        assert all(
            np.array_equal(a, b)
            for a, b in zip(flat(left).values(), flat(right).values(), strict=True)
        )


class TestPropose:
    def test_each_leaf_takes_the_name_that_is_most_alike(self):
        leaves = {"a_1/kernel": (3, 3), "a_0/kernel": (3, 3), "a_0/bias": (3,)}
        sources = {"a.0.weight": (3, 3), "a.0.bias": (3,), "a.1.weight": (3, 3)}
        assert propose.propose(leaves, sources, {}) == {
            "a_1/kernel": Origin("a.1.weight", (1, 0), (3, 3)),
            "a_0/kernel": Origin("a.0.weight", (1, 0), (3, 3)),
            "a_0/bias": Origin("a.0.bias", (0,), (3,)),
        }

    @pytest.mark.parametrize(
        ("leaf", "shape", "kind", "axes"),
        [
            ("x/kernel", (3, 2), "Linear", (1, 0)),
            ("x/kernel", (2, 3), "Conv1D", (0, 1)),
            ("x/embedding", (2, 3), "Embedding", (0, 1)),
        ],
    )
    def test_matrices(self, leaf, shape, kind, axes):
        found = propose.propose({leaf: shape}, {"x.weight": (2, 3)}, {"x": kind})
        assert found[leaf].axes == axes

    def test_kernels_of_images(self):
        found = propose.propose(
            {"c/kernel": (4, 5, 3, 2)}, {"c.weight": (2, 3, 4, 5)}, {}
        )
        assert found["c/kernel"].axes == (2, 3, 1, 0)

    def test_heads_are_split(self):
        found = propose.propose({"q/kernel": (6, 2, 3)}, {"q.weight": (6, 6)}, {})
        assert found["q/kernel"] == Origin("q.weight", (1, 0), (6, 2, 3))
        weight = np.arange(36).reshape(6, 6)
        tree = propose.from_origins(found)({"q.weight": weight})
        np.testing.assert_array_equal(tree["q"]["kernel"], weight.T.reshape(6, 2, 3))

    def test_a_tied_tensor_serves_two_leaves(self):
        leaves = {"embed/embedding": (5, 3), "head/kernel": (3, 5)}
        found = propose.propose(leaves, {"embed.weight": (5, 3)}, {})
        assert {origin.name for origin in found.values()} == {"embed.weight"}

    def test_refuses_a_leaf_without_a_counterpart(self):
        with pytest.raises(UserError, match=r"fits a/kernel \(3, 7\); give convert"):
            propose.propose({"a/kernel": (3, 7)}, {"a.weight": (3, 3)}, {})


class TestLeafShapes:
    def test_partitioned_leaves_have_their_own_names(self, mlp_trace):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x):
                init = nn.with_partitioning(nn.initializers.ones, (None, "model"))
                return nn.Dense(3, kernel_init=init)(x)

        shapes = propose.leaf_shapes(Net(), mlp_trace.read(0))
        assert shapes == {"Dense_0/bias": (3,), "Dense_0/kernel": (8, 3)}

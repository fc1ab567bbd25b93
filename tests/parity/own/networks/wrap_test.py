"""Tests of parity/own/networks/wrap.py: anybody's network behind one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxnn.experiment.errors import UserError
from parity.own.environment import of_a_port
from parity.own.networks.masks import played_back
from parity.own.networks.network import Change
from parity.own.networks.wrap import wrap
from parity.own.tree import Structure

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
KEPT = np.random.default_rng(1).random((4, 3)) > 0.5


@pytest.fixture(autouse=True)
def _of_a_port():
    with of_a_port():
        yield


class Linen(nn.Module):
    """A dense layer in bfloat16, dropout and perhaps a batch norm."""

    has_norm: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(3, dtype=jnp.bfloat16, name="dense")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        if self.has_norm:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return x


class Nnx(nnx.Module):
    """The same in nnx, its layers in a list."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, dtype=jnp.bfloat16, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dropout(self.layers[0](x)))


def apply(params, x):
    return jnp.tanh(x @ params["kernel"])


def linen_variables(model):
    """Returns what `init` makes, without the layer of collections if it is alone."""
    variables = model.init({"params": jax.random.key(0)}, X)
    return variables if model.has_norm else variables["params"]


def network_of(model, tree):
    """Returns a network and its leaves."""
    structure = Structure(tree)
    return wrap(model, structure), structure.flatten(tree)


def linen(has_norm=False):
    model = Linen(has_norm)
    return network_of(model, linen_variables(model))


def of_nnx():
    model = Nnx(nnx.Rngs(0))
    return network_of(model, nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))


def run(network, leaves, exact=False, **change):
    """Runs a forward pass as `Objective` does: traced, and with torch's mask."""

    def traced(leaves):
        with played_back([KEPT]):
            return network(leaves, {"x": X}, exact, Change(**change))

    return jax.jit(traced)(leaves)


class TestLinen:
    def test_bare_parameters(self):
        network, leaves = linen()
        call = run(network, leaves)
        dense = X.astype(jnp.bfloat16) @ leaves["dense/kernel"].astype(jnp.bfloat16)
        np.testing.assert_array_equal(call.outputs, jnp.where(KEPT, dense / 0.5, 0))
        assert list(call.activations) == ["dense", "Dropout_0"]
        assert call.state == {}

    def test_running_statistics_are_returned(self):
        network, leaves = linen(has_norm=True)
        call = run(network, leaves)
        assert set(call.state) == {"batch_stats/norm/mean", "batch_stats/norm/var"}
        assert call.state["batch_stats/norm/mean"].any()

    def test_the_reference_lifts_dtypes(self):
        network, leaves = linen()
        dtypes = [
            run(network, leaves, exact).activations["dense"].dtype
            for exact in (False, True, False)
        ]
        assert dtypes == [jnp.bfloat16, jnp.float32, jnp.bfloat16]

    def test_float64_stays_float64(self):
        network, leaves = linen(has_norm=True)
        with jax.enable_x64(True):
            wide = {name: leaf.astype(np.float64) for name, leaf in leaves.items()}
            call = jax.eval_shape(lambda w: run(network, w, exact=True), wide)
        assert call.activations["dense"].dtype == np.float64

    def test_attributes_and_a_change_of_them(self):
        network, leaves = linen(has_norm=True)
        plain = run(network, leaves).outputs
        assert network.attributes(["epsilon"]) == {("BatchNorm", "epsilon"): {1e-5}}
        changed = run(network, leaves, kind="BatchNorm", name="epsilon", value=1.0)
        assert (plain != changed.outputs).any()
        np.testing.assert_array_equal(run(network, leaves).outputs, plain)

    @pytest.mark.parametrize(
        ("has_norm", "leaf"), [(False, "dense/kernel"), (True, "params/dense/kernel")]
    )
    def test_the_module_of_a_leaf(self, has_norm, leaf):
        assert linen(has_norm)[0].module_of(leaf) == "dense"


class TestNnx:
    def test_trains_within_a_trace(self):
        network, leaves = of_nnx()
        assert set(leaves) == {
            "layers/0/kernel",
            "layers/0/bias",
            *(f"norm/{part}" for part in ("scale", "bias", "mean", "var")),
        }
        call = run(network, leaves)
        assert list(call.activations) == ["layers/0", "dropout", "norm"]
        assert set(call.state) == {"norm/mean", "norm/var"}
        assert call.state["norm/mean"].any()
        np.testing.assert_array_equal(call.activations["dropout"] == 0, ~KEPT)

    def test_takes_the_leaves_that_it_is_given(self):
        network, leaves = of_nnx()
        zeros = leaves | {"layers/0/kernel": np.zeros((3, 3), np.float32)}
        assert run(network, leaves).activations["layers/0"].any()
        assert not run(network, zeros).activations["layers/0"].any()

    def test_the_reference_lifts_dtypes(self):
        network, leaves = of_nnx()
        dtypes = [
            run(network, leaves, exact).activations["layers/0"].dtype
            for exact in (True, False)
        ]
        assert dtypes == [jnp.float32, jnp.bfloat16]

    def test_the_users_module_stays_as_it_is(self):
        model = Nnx(nnx.Rngs(0))
        model.eval()
        before = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        run(*network_of(model, nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
        after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
        assert all(map(np.array_equal, before, after))
        assert model.dropout.deterministic
        assert not model.norm.mean[...].any()

    def test_attributes_and_a_change_of_them(self):
        network, leaves = of_nnx()
        assert network.attributes(["epsilon"]) == {("BatchNorm", "epsilon"): {1e-5}}
        plain = run(network, leaves).outputs
        changed = run(network, leaves, kind="BatchNorm", name="epsilon", value=1.0)
        assert (plain != changed.outputs).any()

    def test_the_module_of_a_leaf(self):
        assert of_nnx()[0].module_of("layers/0/kernel") == "layers/0"

    def test_refuses_a_leaf_that_it_lacks(self):
        with pytest.raises(UserError, match="convert: out/kernel is no variable of"):
            wrap(Nnx(nnx.Rngs(0)), Structure({"out": {"kernel": X}}))


class TestFunction:
    def test_is_called_with_the_tree(self):
        network, leaves = network_of(apply, {"kernel": np.eye(3, dtype=np.float32)})
        call = network(leaves, {"x": X}, False)
        np.testing.assert_array_equal(call.outputs, np.asarray(jnp.tanh(X)))
        assert (call.activations, call.state) == ({}, {})
        assert network.attributes(["epsilon"]) == {}
        assert network.module_of("layer/kernel") == "layer"


class TestWrap:
    def test_refuses_what_cannot_be_called(self):
        with pytest.raises(UserError, match=r"model: a int is no flax"):
            wrap(3, Structure({"a": X}))

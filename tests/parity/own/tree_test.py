"""Tests of parity/own/tree.py: a parameter tree as flat names, and back."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from parity.own.tree import Structure, only, plain

KEYS = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)


class Pair(NamedTuple):
    left: int
    right: list


class TestStructure:
    @given(st.dictionaries(KEYS, TREES, min_size=1, max_size=3))
    def test_unflatten_undoes_flatten(self, tree):
        structure = Structure(tree)
        flat = structure.flatten(tree)
        assert list(flat) == structure.names
        assert structure.unflatten(flat) == tree

    @pytest.mark.parametrize(
        ("tree", "names"),
        [
            ({"b": {"c": 1}, "a": 2}, ["a", "b/c"]),
            ([1, {"a": 2}], ["0", "1/a"]),
            (Pair(1, [2, 3]), ["left", "right/0", "right/1"]),
            (freeze({"a": {"b": 1}}), ["a/b"]),
            ({"a": None, "b": 1}, ["b"]),
        ],
    )
    def test_names_are_paths_in_any_container(self, tree, names):
        assert Structure(tree).names == names

    def test_an_nnx_state_is_the_dict_that_it_holds(self):
        layer = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0))])
        structure = Structure(nnx.state(layer, nnx.Param))
        assert structure.names == ["0/bias", "0/kernel"]

    def test_a_prefix_stands_before_every_name(self):
        assert Structure({"a": 1}, "params/").flatten({"a": 2}) == {"params/a": 2}

    @pytest.mark.parametrize("tree", [{}, {"a": {}}, None])
    def test_refuses_a_tree_without_arrays(self, tree):
        with pytest.raises(UserError, match="returned no arrays"):
            Structure(tree)

    def test_refuses_another_structure(self):
        with pytest.raises(UserError, match="trees of two structures"):
            Structure({"a": 1}).flatten({"b": 1})


class TestOnly:
    def test_leaves_out_what_is_not_kept(self):
        structure = only(Structure({"a": 1, "b": {"c": 2}}), {"b/c"})
        assert structure.names == ["b/c"]
        assert structure.unflatten({"b/c": 5}) == {"a": None, "b": {"c": 5}}

    def test_the_params_of_variables_stand_for_themselves(self):
        tree = {"params": {"a": 1}, "batch_stats": {"mean": 2}}
        structure = only(Structure(tree), {"params/a"})
        assert structure.names == ["params/a"]
        assert structure.unflatten({"params/a": 5}) == {"a": 5}


class TestPlain:
    def test_other_trees_stay_as_they_are(self):
        tree = {"a": np.ones(2)}
        assert plain(tree) is tree
        assert jax.tree.structure(plain([1, 2])) == jax.tree.structure([1, 2])

"""Tests of jaxnn/precision.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import precision
from jaxnn.experiment.flags.config import PRECISIONS


class TestPolicies:
    def test_every_precision_has_one(self):
        assert tuple(precision.POLICIES) == PRECISIONS

    @pytest.mark.parametrize(
        ("name", "compute", "master"),
        [
            ("fp64", "float64", "float64"),
            ("fp32", "float32", "float32"),
            ("bf16", "bfloat16", "float32"),
            ("fp16", "float16", "float32"),
        ],
    )
    def test_formats(self, name, compute, master):
        policy = precision.POLICIES[name]
        assert (jnp.dtype(policy.compute).name, jnp.dtype(policy.master).name) == (
            compute,
            master,
        )


class TestCast:
    def test_casts_floats_and_leaves_integers(self):
        tree = {
            "a": jnp.array([1.0, 1 / 3]),
            "b": (jnp.array([7]), jnp.array([True]), jnp.ones(1, jnp.bfloat16)),
        }
        out = precision.cast(tree, jnp.float16)
        assert [leaf.dtype.name for leaf in jax.tree.leaves(out)] == [
            "float16",
            "int32",
            "bool",
            "float16",
        ]
        np.testing.assert_array_equal(out["a"], np.array([1, 1 / 3], np.float16))
        np.testing.assert_array_equal(out["b"][0], [7])


class TestAtLeastFloat32:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("float16", "float32"),
            ("bfloat16", "float32"),
            ("float32", "float32"),
            ("float64", "float64"),
        ],
    )
    def test_widens_what_is_narrower(self, given, expected):
        with jax.enable_x64(True):
            x = jnp.asarray([1 / 3], given)
            np.testing.assert_array_equal(
                precision.at_least_float32(x),
                np.asarray(x).astype(expected),
                strict=True,
            )

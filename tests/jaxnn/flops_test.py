"""FLOPs counted from shapes: against sums of ones, XLA's own analysis, and counts by
hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import flops

LAYOUT = ("NHWC", "HWIO", "NHWC")


def shape(*sizes: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def total(function, *arguments) -> int:
    return flops.total(jax.make_jaxpr(function)(*arguments))


class TestConvolution:
    @settings(deadline=None, max_examples=15)
    @given(
        size=st.integers(3, 7),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 3),
        padding=st.integers(0, 2),
        dilation=st.integers(1, 3),
        groups=st.integers(1, 2),
    )
    def test_counts_the_products_without_zeros(
        self, size, kernel, stride, padding, dilation, groups
    ):
        # A convolution of ones with ones is the number of products behind each output:
        # small whole numbers, exact.
        def convolve(x, k):
            return jax.lax.conv_general_dilated(
                x,
                k,
                (stride, stride),
                [(padding, padding)] * 2,
                lhs_dilation=(dilation, 1),
                rhs_dilation=(1, 1),
                dimension_numbers=LAYOUT,
                feature_group_count=groups,
            )

        x, k = (
            np.ones((2, size, size, 2 * groups), np.float32),
            np.ones((kernel, kernel, 2, 4), np.float32),
        )
        assert total(convolve, x, k) == 2 * int(convolve(x, k).sum())

    def test_gradients_do_as_many_products_as_the_convolution(self):
        def convolve(x, k):
            return jax.lax.conv_general_dilated(
                x, k, (2, 2), [(1, 1), (1, 1)], dimension_numbers=LAYOUT
            )

        def both(x, k, g):
            return jax.vjp(convolve, x, k)[1](g)

        x, k, g = shape(3, 8, 8, 2), shape(3, 3, 2, 5), shape(3, 4, 4, 5)
        # Each product of an input and a weight is one of the gradient of either.
        assert total(both, x, k, g) == 3 * total(convolve, x, k)

    def test_agrees_with_xla(self):
        def convolve(x, k):
            return jax.lax.conv_general_dilated(
                x, k, (2, 1), "SAME", dimension_numbers=LAYOUT
            )

        x, k = shape(2, 9, 6, 3), shape(3, 3, 3, 8)
        assert (
            total(convolve, x, k)
            == jax.jit(convolve).lower(x, k).compile().cost_analysis()["flops"]
        )


class TestOperations:
    def test_product_and_its_gradients(self):
        def loss(a, b):
            return jnp.sum(a @ b)

        a, b, product = shape(3, 4), shape(4, 5), 2 * 3 * 4 * 5
        assert total(loss, a, b) == product + 14
        assert total(jax.grad(loss, (0, 1)), a, b) == 3 * product + 14

    def test_batched_product_agrees_with_xla(self):
        def attend(q, k):
            return jnp.einsum("bqhd,bkhd->bhqk", q, k)

        q = shape(2, 5, 3, 4)
        assert total(attend, q, q) == 2 * 2 * 3 * 5 * 5 * 4
        assert (
            total(attend, q, q)
            == jax.jit(attend).lower(q, q).compile().cost_analysis()["flops"]
        )

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (lambda x: x + x, 12),
            (jnp.tanh, 12),
            (jax.nn.relu, 12),
            (lambda x: x.sum(), 11),
            (lambda x: x.max(axis=0), 8),
            (lambda x: x.T.reshape(-1), 0),
            (lambda x: jnp.where(x > 0, x, x), 0),
            (lambda x: x.astype(jnp.float16), 0),
        ],
    )
    def test_by_hand(self, function, expected):
        assert total(function, shape(3, 4)) == expected

    def test_whole_numbers_are_free(self):
        assert total(lambda x: x * x + x, shape(3, 4, dtype=jnp.int32)) == 0

    def test_pooling_takes_one_less_than_its_window(self):
        def pool(x):
            return jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            )

        assert total(pool, shape(2, 4, 4, 3)) == 2 * 2 * 2 * 3 * (4 - 1)


class TestPrograms:
    def test_loops_count_as_often_as_they_run(self):
        def loop(x):
            return jax.lax.scan(
                lambda carry, _: (jnp.sin(carry), None), x, None, length=7
            )[0]

        program = jax.make_jaxpr(loop)(shape(3))
        assert flops.total(program) == 7 * 3
        assert flops.has_loops(program)

    def test_one_branch_counts(self):
        def branch(x):
            return jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)

        program = jax.make_jaxpr(branch)(shape(3))
        assert flops.total(program) == 3
        assert not flops.has_loops(program)

    def test_the_innermost_layer_owns_an_operation(self):
        def network(x):
            with jax.named_scope("layer="):
                x = x + x
                with jax.named_scope("layer=a.b"):
                    x = jax.jit(jnp.sin)(x)
            return x * x

        assert flops.by_layer(jax.make_jaxpr(network)(shape(3))) == {
            "": 3,
            "a.b": 3,
            flops.OUTSIDE: 3,
        }

"""Tests of parity/oracle/tensor.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import (
    BroadcastableShapes,
    array_shapes,
    mutually_broadcastable_shapes,
)

from parity.oracle import tensor
from parity.oracle.operations import total
from parity.oracle.tensor import Tensor, gradients, lift, variable
from tests.parity.oracle.differences import check_derivatives

BINARY = {
    "add": tensor.add,
    "multiply": tensor.multiply,
    "power": tensor.power,
    "subtract": lambda x, y: x - y,
    "divide": lambda x, y: x / y,
}
few = settings(max_examples=30, deadline=None)
pairs = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)
seeds = st.integers(0, 2**16)


class TestPrimitives:
    @pytest.mark.parametrize("name", BINARY)
    @given(shapes=pairs, seed=seeds)
    @few
    def test_broadcasting_against_differences(
        self, name, shapes: BroadcastableShapes, seed
    ):
        check_derivatives(BINARY[name], shapes.input_shapes, seed)

    @given(sizes=st.tuples(*[st.integers(1, 3)] * 3), batch=pairs, seed=seeds)
    @few
    def test_matrix_products_against_differences(self, sizes, batch, seed):
        n, m, k = sizes
        left, right = batch.input_shapes
        check_derivatives(tensor.matmul, ((*left, n, m), (*right, m, k)), seed)

    @given(shape=array_shapes(min_dims=1, max_dims=3, max_side=4), seed=seeds)
    @few
    def test_places_taken_many_times_against_differences(self, shape, seed):
        places = np.random.default_rng(seed).integers(0, shape[0], (2, 5))
        check_derivatives(lambda x: tensor.take(x, places), (shape,), seed)

    @pytest.mark.parametrize(
        "key",
        [
            0,
            -1,
            slice(1, None),
            (slice(None), 2),
            (slice(None, None, 2), slice(0, 3, 2)),
            (slice(None), np.array([0, 0, 2])),
        ],
        ids=str,
    )
    def test_slices_against_differences(self, key):
        check_derivatives(lambda x: tensor.take(x, key), ((3, 4),), 0)

    def test_powers_at_zero(self):
        # At 0, x^0 is flat, x^1 has slope 1 and x^2 slope 0.
        for exponent, slope in ((0, 0), (1, 1), (2, 0)):
            x = variable(0.0)
            assert gradients(x ** float(exponent), [x])[0] == slope

    @pytest.mark.parametrize(
        ("compute", "derivatives"),
        [
            (lambda a, b: a * b + a, (4, 2)),
            (lambda a, b: a - b, (1, -1)),
            (lambda a, b: 1 - a * a, (-4, 0)),
            (lambda a, b: 12 / b, (0, -12 / 9)),
            (lambda a, b: b / a, (-3 / 4, 1 / 2)),
            (lambda a, b: -(a**b), (-12, -8 * np.log(2))),
        ],
    )
    def test_operators_by_hand(self, compute, derivatives):
        a = variable(2.0)
        b = variable(3.0)
        np.testing.assert_allclose(
            gradients(compute(a, b), [a, b]),
            derivatives,
            rtol=4 * np.finfo(np.float64).eps,
        )

    def test_an_array_on_the_left_is_left_to_the_tensor(self):
        x = variable(np.ones(2))
        for result in (np.ones(2) + x, np.ones(2) * x, np.ones(2) - x, np.ones(2) / x):
            assert isinstance(result, Tensor)
            assert result.shape == (2,)


class TestGradients:
    def test_of_a_node_between(self):
        x = variable(3.0)
        square = x * x
        assert gradients(2 * square + x, [square, x]) == [2, 13]

    def test_what_the_output_does_not_depend_on_has_none(self):
        x = variable(np.ones((2, 3)))
        y = variable(2.0)
        np.testing.assert_array_equal(gradients(y * y, [x])[0], np.zeros((2, 3)))

    def test_of_itself_is_one(self):
        x = variable(5.0)
        assert gradients(x, [x]) == [1]

    def test_constants_are_not_remembered(self):
        result = lift(2.0) * np.ones(3) + 1
        assert result.parents == ()
        assert not result.tracked

    def test_each_node_once_however_many_paths(self):
        # 2^60 paths lead from the output to x. Integers are exact.
        x = y = variable(1.0)
        for _ in range(60):
            y = y + y
        assert len(tensor.topological(y)) == 61
        assert gradients(y, [x]) == [2.0**60]

    def test_a_graph_deeper_than_pythons_stack(self):
        x = y = variable(1.0)
        for _ in range(50_000):
            y = y + 1.0
        assert gradients(y, [x]) == [1]

    def test_does_not_change_what_it_was_given(self):
        # A vector-Jacobian product may return its argument itself, which a sum in place
        # would change.
        x = variable(np.array([1.0, 2.0]))
        y = x + 0.0
        z = y * 3.0
        output = total(y + z)
        first = gradients(output, [x, y, z])
        second = gradients(output, [x, y, z])
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first[0], [4, 4])


class TestTopological:
    @given(
        st.lists(
            st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=40
        )
    )
    @few
    def test_arguments_come_before_results(self, edges):
        nodes = [variable(1.0)]
        for left, right in edges:
            nodes.append(nodes[left % len(nodes)] + nodes[right % len(nodes)])
        order = tensor.topological(nodes[-1])
        place = {id(node): number for number, node in enumerate(order)}
        assert len(place) == len(order)
        assert order[-1] is nodes[-1]
        assert all(
            place[id(parent)] < place[id(node)]
            for node in order
            for parent, _ in node.parents
        )

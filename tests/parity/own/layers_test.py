"""Tests of parity/own/layers.py: modules of both sides that hold the same entries."""

import numpy as np
import pytest

from jaxnn.experiment.files.weight_map import WeightMap
from parity.own.layers import Pairs, pair
from parity.own.networks.function import FunctionNetwork
from parity.own.state_dict import Converted
from parity.own.tree import Structure

SHAPES = {
    "q.weight": (2, 3),
    "k.weight": (2, 3),
    "out.weight": (3, 3),
    "out.bias": (3,),
    "scale": (3,),
}


def pairs_of(convert, shapes=SHAPES, trained=None):
    structures = []

    def flat(arrays):
        tree = convert(arrays)
        structures.append(Structure(tree))
        return structures[0].flatten(tree)

    converted = Converted(WeightMap.from_convert(shapes, flat), structures[0])
    network = FunctionNetwork(lambda params: None, structures[0])
    return pair(network, converted, trained or structures[0].names)


def dense(state, name):
    return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}


class TestPair:
    def test_modules_with_the_same_entries(self):
        pairs = pairs_of(lambda s: {"a": {"q": {"kernel": s["q.weight"].T}}})
        assert pairs.torch_of == {"a/q": "q"}

    def test_all_leaves_of_a_module_count(self):
        assert pairs_of(lambda s: {"o": dense(s, "out")}).torch_of == {"o": "out"}

    def test_joined_modules_are_no_pair(self):
        def convert(s):
            joined = np.concatenate([s["q.weight"].T, s["k.weight"].T], axis=1)
            return {"qkv": {"kernel": joined}, "o": dense(s, "out")}

        assert pairs_of(convert).torch_of == {"o": "out"}

    def test_a_module_in_two_is_no_pair(self):
        def convert(s):
            return {"left": {"k": s["q.weight"][:1]}, "right": {"k": s["q.weight"][1:]}}

        assert pairs_of(convert).torch_of == {}

    def test_a_tied_leaf_elsewhere_parts_a_pair(self):
        def convert(s):
            return {"embed": {"e": s["q.weight"]}, "head": {"kernel": s["q.weight"].T}}

        assert pairs_of(convert).torch_of == {}

    def test_leaves_of_the_whole_model_have_no_module(self):
        assert pairs_of(lambda s: {"scale": s["scale"]}).torch_of == {}

    def test_running_statistics_do_not_count(self):
        def convert(s):
            return {"a": {"k": s["q.weight"]}, "b": {"mean": s["k.weight"]}}

        assert pairs_of(convert, trained=["a/k"]).torch_of == {"a": "q"}

    @pytest.mark.parametrize("axes", [(2, 3, 1, 0), (0, 1, 2, 3)])
    def test_a_kernel_tells_of_images(self, axes):
        shapes = {"conv.weight": (2, 3, 4, 5), "fc.weight": (2, 3)}
        pairs = pairs_of(
            lambda s: {"c": {"k": s["conv.weight"].transpose(axes)}}, shapes
        )
        assert pairs.has_images
        assert not pairs_of(lambda s: {"f": {"k": s["fc.weight"]}}, shapes).has_images


class TestInPortLayout:
    @pytest.mark.parametrize(
        ("has_images", "recorded", "port", "fits"),
        [
            (True, (2, 3, 4, 5), (2, 4, 5, 3), True),
            (True, (2, 3, 4), (2, 4, 3), True),
            (True, (2, 3), (2, 3), True),
            (False, (2, 3, 4, 5), (2, 4, 5, 3), False),
            (False, (6, 4), (2, 3, 4), True),
            (False, (2, 3, 4), (6, 4), True),
            (False, (4, 6), (2, 3, 4), False),
            (False, (2, 3), (2, 4), False),
        ],
    )
    def test_shapes(self, has_images, recorded, port, fits):
        array = np.arange(np.prod(recorded)).reshape(recorded)
        found = Pairs({}, has_images).in_port_layout(array, port)
        assert (found is not None and found.shape == port) == fits

    def test_square_images_are_turned_as_well(self):
        array = np.arange(16).reshape(1, 4, 2, 2).repeat(2, 0)
        assert array.transpose(0, 2, 3, 1).shape != array.shape
        cube = np.arange(54).reshape(2, 3, 3, 3)
        found = Pairs({}, True).in_port_layout(cube, (2, 3, 3, 3))
        np.testing.assert_array_equal(found, cube.transpose(0, 2, 3, 1))

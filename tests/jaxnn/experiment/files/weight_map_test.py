"""Maps read off converters."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.files.weight_map import WeightMap

FACTORS = (1.0, -1.0, 0.5, math.sqrt(8), 1 / 3, 1e-3)
CONSTANTS = (0.0, 1.0, -0.3, 100.0)
CASTS = (np.float64, np.float32)


def transposed(array, draw):
    return array.transpose(draw(st.permutations(range(array.ndim))))


def reshaped(array, draw):
    return array.reshape(draw(st.sampled_from([(-1,), (1, -1), array.shape[::-1]])))


def split(array, draw):
    return np.array_split(array, 2, axis=draw(st.integers(0, array.ndim - 1)))[0]


def doubled(array, draw):
    return np.concatenate([array, array], axis=draw(st.integers(0, array.ndim - 1)))


def flipped(array, draw):
    return np.flip(array, axis=draw(st.integers(0, array.ndim - 1)))


def joined(array, draw):
    return np.concatenate([array.ravel(), np.flip(array).ravel()])


MOVES = (transposed, reshaped, split, doubled, flipped, joined)


class Recorded:
    """Draws once, and again the same when a converter is called again."""

    def __init__(self, draw):
        self.draw, self.drawn, self.next = draw, [], 0

    def __call__(self, strategy):
        if self.next == len(self.drawn):
            self.drawn.append(self.draw(strategy))
        self.next += 1
        return self.drawn[self.next - 1]


@st.composite
def converters(draw):
    """Shapes of sources, a function that moves entries, and {target: its rest}."""
    sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
    shapes = {f"s{i}": draw(sizes) for i in range(draw(st.integers(1, 4)))}
    targets = {}
    for i in range(draw(st.integers(1, 5))):
        source = draw(st.sampled_from(sorted(shapes)))
        moves = draw(st.lists(st.sampled_from(MOVES), max_size=3))
        targets[f"t/{i}"] = (source, moves, Recorded(draw))

    def move(arrays):
        results = {}
        for name, (source, moves, recorded) in targets.items():
            recorded.next, array = 0, np.asarray(arrays[source])
            for step in moves:
                array = step(array, recorded)
            results[name] = array
        return results

    rest = {
        name: (draw(st.sampled_from(FACTORS)), draw(st.sampled_from(CONSTANTS)))
        for name in targets
    }
    return shapes, move, rest


def indices(shapes):
    numbers = np.arange(sum(math.prod(shape) for shape in shapes.values()))
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    parts = np.split(numbers, ends)
    return {name: p.reshape(shapes[name]) for name, p in zip(shapes, parts)}


class TestFromConvert:
    @given(converter=converters(), cast=st.sampled_from(CASTS))
    @settings(deadline=None, max_examples=150, derandomize=True)
    def test_recovers_moves_factors_and_constants(self, converter, cast):
        shapes, move, rest = converter

        def convert(arrays):
            moved = move(arrays)
            return {
                n: (a * rest[n][0] + rest[n][1]).astype(cast) for n, a in moved.items()
            }

        found = WeightMap.from_convert(shapes, convert)
        for name, expected in move(indices(shapes)).items():
            factor, constant = rest[name]
            part = found.targets[name]
            assert np.array_equal(part.source, expected)
            tight = (
                1e-12 if cast is np.float64 else 1e-2 if abs(factor) < 0.01 else 1e-5
            )
            assert np.allclose(part.factor, factor, rtol=tight, atol=0)
            assert np.array_equal(
                part.constant, np.full(part.source.shape, cast(constant))
            )
            if abs(factor) == 1 or (constant == 0 and cast is np.float64):
                assert (part.factor == factor).all()

    @given(converter=converters())
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_there_and_back(self, converter):
        shapes, move, _ = converter
        found = WeightMap.from_convert(shapes, move)
        random = np.random.default_rng(0)
        arrays = {
            name: random.standard_normal(shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        applied = found.apply(arrays)
        for name, array in move(arrays).items():
            assert applied[name].dtype == np.float32
            assert np.array_equal(applied[name], array)
        back = found.invert(applied)
        assert back.keys() == shapes.keys() - found.unused.keys()
        for name, array in back.items():
            assert np.array_equal(array, arrays[name])

    def test_knows_more_entries_than_float32_has_whole_numbers(self):
        # Only the indices are large; the digits stay small.
        shapes = {"a": (300, 300), "b": (2,)}
        found = WeightMap.from_convert(
            shapes, lambda d: {"x": d["a"].T.astype(np.float16), "y": d["b"]}
        )
        assert np.array_equal(found.targets["x"].source, indices(shapes)["a"].T)
        assert found.targets["y"].source.tolist() == [90000, 90001]

    @pytest.mark.parametrize(
        "convert",
        [
            lambda d: {
                "x": jnp.transpose(d["w"]) * jnp.sqrt(jnp.asarray(8.0, jnp.float64))
            },
            lambda d: {"x": d["w"].permute(1, 0) * 8**0.5},
            lambda d: {"x": d["w"].astype(jnp.float64).at[0].get()},
        ],
        ids=["jax.numpy", "torch", "methods of JAX"],
    )
    def test_takes_any_librarys_functions(self, convert):
        found = WeightMap.from_convert({"w": (3, 2)}, convert).targets["x"]
        assert found.source.size in (6, 2)
        assert (found.factor == found.factor.flat[0]).all()

    def test_takes_what_jax_rounds_to_bfloat16(self):
        found = WeightMap.from_convert(
            {"w": (300, 2)}, lambda d: {"x": jnp.asarray(d["w"], jnp.bfloat16).T}
        )
        assert found.targets["x"].only_moves()

    def test_takes_trees_and_converters_that_pop(self):
        found = WeightMap.from_convert(
            {"w": (2,), "v": ()},
            lambda d: {"a": {"b": d.pop("w"), "c": torch.tensor(d.pop("v"))}},
        )
        assert list(found.targets) == ["a/b", "a/c"]

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda w: w + w[::-1],
            lambda w: w - w[::-1],
            lambda w: w - w.mean(),
            lambda w: np.exp(w) / np.exp(w).sum(),
            lambda w: w**2,
            lambda w: np.abs(w),
            lambda w: w / np.linalg.norm(w),
            lambda w: w + 1e-9 * w[::-1],
            lambda w: np.concatenate([w[:-1], w[:1] * w[1:2]]),
        ],
    )
    def test_refuses_by_name_what_is_no_rearrangement(self, wrong):
        with pytest.raises(UserError, match=r"convert: layer/x\[\d\] is not an entry"):
            WeightMap.from_convert(
                {"v": (3,), "w": (4,)},
                lambda d: {"layer": {"fine": d["v"], "x": wrong(d["w"])}},
            )

    def test_refuses_two_meanings(self):
        with pytest.raises(UserError, match="one thing to NumPy arrays and another"):
            WeightMap.from_convert(
                {"w": (3, 3)}, lambda d: {"x": d["w"].transpose(0, 1)}
            )

    @pytest.mark.parametrize(
        ("convert", "message"),
        [
            (lambda d: {"x": d["u"]}, "convert: it raised KeyError: 'u'"),
            (lambda d: {"x": d["w"].nothing}, "convert: it raised AttributeError: .*"),
            (lambda d: {"x": d["w"].reshape(7)}, "convert: it raised ValueError: .*"),
            (lambda d: d["w"], "convert: it raised AttributeError: .*"),
        ],
    )
    def test_says_what_a_converter_raised(self, convert, message):
        with pytest.raises(UserError, match=message):
            WeightMap.from_convert({"w": (2, 3)}, convert)


class TestKinds:
    def test_follow_the_factor(self):
        found = WeightMap.from_convert(
            {"w": (2,)}, lambda d: {"x": np.append(d["w"] * 4 + 1, 7.0)}
        )
        w = {"w": np.array([3.0, 5.0])}
        assert found.apply(w)["x"].tolist() == [13, 21, 7]
        assert found.apply(w, "gradient")["x"].tolist() == [0.75, 1.25, 0]
        assert found.apply(w, "second")["x"].tolist() == [3 / 16, 5 / 16, 0]
        assert found.apply(w, "delta")["x"].tolist() == [12, 20, 0]
        for kind in ("value", "gradient", "second", "delta"):
            assert found.invert(found.apply(w, kind), kind)["w"].tolist() == [3, 5]

    def test_gradients_of_tied_entries_add_up(self):
        found = WeightMap.from_convert(
            {"w": (2,)}, lambda d: {"x": d["w"], "y": 2 * d["w"][::-1]}
        )
        given = {"x": np.array([1.0, 2.0]), "y": np.array([30.0, 40.0])}
        assert found.invert(given, "gradient")["w"].tolist() == [81, 62]
        assert found.invert(given)["w"].tolist() == [1, 2]
        assert found.repeated == {"y": "x"}


class TestAbsent:
    def test_sources_leave_out_their_targets(self):
        found = WeightMap.from_convert(
            {"v": (1,), "w": (2,)},
            lambda d: {"x": d["w"], "y": np.append(d["v"], d["w"]), "z": np.ones(1)},
        )
        assert list(found.apply({"w": np.ones(2)})) == ["x", "z"]

    def test_entries_are_counted(self):
        found = WeightMap.from_convert(
            {"v": (3,), "w": (2,), "u": (1,)}, lambda d: {"x": d["v"][:1], "y": d["u"]}
        )
        assert found.unused == {"v": 2, "w": 2}
        assert list(found.invert({"x": np.ones(1), "y": np.ones(1)})) == ["u"]

    def test_other_names_and_shapes_are_refused(self):
        found = WeightMap.from_convert({"w": (2,)}, flatten)
        with pytest.raises(UserError, match="v is none of its sources"):
            found.apply({"v": np.ones(2)})
        with pytest.raises(UserError, match=r"w is \(3,\), \(2,\) among its targets"):
            found.invert({"w": np.ones(3)})

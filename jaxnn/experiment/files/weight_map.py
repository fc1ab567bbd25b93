"""Where each entry of converted parameters comes from, read off the converter.

Whoever ports a network has a function from torch's `state_dict` to a tree of flax
parameters. Usually it only moves entries, and perhaps scales or shifts them:

    target entry = factor * source entry + constant

Filled with numbers that tell the entries apart it reveals the move, and what is shaped
like parameters, gradients and moments, goes the same way, there and back.

The numbers survive a cast to half precision: the index of an entry is shown in digits
of 8 bits, one digit a conversion.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten

Arrays: TypeAlias = Mapping[str, np.ndarray]
Kind: TypeAlias = Literal["value", "gradient", "second", "delta"]
Convert: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]

BASE = 256
"""Base of the digits: bfloat16 holds the whole numbers up to it exactly."""
UNIT = 128.0
"""What every entry is for the factors: large beside constants, small for FP16."""
SIGNIFICANT_BITS = (8, 11, 24, 53)
"""Of bfloat16, float16, float32 and float64."""


class Entries(NamedTuple):
    """Of each entry of a target, in the target's shape, where it comes from.

    Attributes:
      source: int64 index into all sources, flat and end to end; -1: a constant.
      factor: float64, 0 for a constant.
      constant: float64.
    """

    source: np.ndarray
    factor: np.ndarray
    constant: np.ndarray

    def only_moves(self) -> bool:
        """Returns whether every entry is that of a source, as it is."""
        moved = (self.source >= 0) & (self.factor == 1) & (self.constant == 0)
        return bool(moved.all())


class WeightMap:
    """A map from named arrays to others that are made of their entries.

    Attributes:
      sources: name -> shape, in the order of the flat index.
      targets: name -> its entries.
      origins: target -> the sources that it is made of.
      unused: sources of which no target holds every entry -> how many none holds.
      repeated: target -> an earlier one that holds the same entry: tied weights.
    """

    def __init__(
        self, sources: Mapping[str, tuple[int, ...]], targets: Mapping[str, Entries]
    ):
        self.sources = {name: tuple(shape) for name, shape in sources.items()}
        self.targets = dict(targets)
        self._slices = _slices(self.sources)
        self.origins = {name: self._owners(part) for name, part in targets.items()}
        self._uses = self._count_uses()
        self.unused = self._find_unused()
        self.repeated = self._find_repeated()

    @classmethod
    def from_convert(
        cls, shapes: Mapping[str, tuple[int, ...]], convert: Convert
    ) -> "WeightMap":
        """Returns the map that a converter follows.

        Args:
          shapes: source name -> shape.
          convert: {source name: array} -> flat or nested {target name: array}; written
            for NumPy arrays, or else for torch's or JAX's.

        Raises:
          UserError: the converter fails, or an entry of its result is not one of the
            sources', scaled and shifted.
        """
        return cls(shapes, _probe(dict(shapes), convert))

    def apply(self, arrays: Arrays, kind: Kind = "value") -> dict[str, np.ndarray]:
        """Returns the targets of arrays that are shaped like the sources.

        Args:
          arrays: source name -> array; targets are left out if one of theirs is absent.
          kind: what the arrays are: "value", parameters; "gradient"; "second", squares
            of gradients; "delta", differences of parameters. All but values are 0 where
            the target is a constant.

        Returns:
          {target name: array}, float64, or the arrays' type if entries only move.

        Raises:
          UserError: an array is not a source or has another shape.
        """
        flat = self._joined(arrays)
        return {
            name: _converted(flat, self.targets[name], kind)
            for name, needs in self.origins.items()
            if needs <= arrays.keys()
        }

    def invert(self, arrays: Arrays, kind: Kind = "value") -> dict[str, np.ndarray]:
        """Returns the sources of arrays that are shaped like the targets.

        Args:
          arrays: target name -> array; a source is left out if none of them holds one
            of its entries.
          kind: as for `apply`. Gradients of tied entries are added up; of what else is
            tied the first target counts.

        Returns:
          {source name: array}, float64, or the arrays' type if entries only move.

        Raises:
          UserError: an array is not a target or has another shape.
        """
        flat, known = self._gathered(arrays, kind)
        return {
            name: flat[where].reshape(self.sources[name])
            for name, where in self._slices.items()
            if known[where].all()
        }

    def _owners(self, part: Entries) -> set[str]:
        """Returns the names of the sources that a target is made of."""
        starts = [where.start for where in self._slices.values()]
        indices = part.source[part.source >= 0]
        owners = np.searchsorted(starts, indices, side="right") - 1
        counts = np.bincount(owners, minlength=len(starts))
        return {name for name, count in zip(self._slices, counts) if count}

    def _count_uses(self) -> np.ndarray:
        """Returns how many entries of targets are that of each source, [total]."""
        uses = np.zeros(_total(self.sources), np.int32)
        for part in self.targets.values():
            np.add.at(uses, part.source[part.source >= 0], 1)
        return uses

    def _find_unused(self) -> dict[str, int]:
        free = {
            name: int((self._uses[part] == 0).sum())
            for name, part in self._slices.items()
        }
        return {name: count for name, count in free.items() if count}

    def _find_repeated(self) -> dict[str, str]:
        if (self._uses <= 1).all():
            return {}
        names = list(self.targets)
        holders = np.full(_total(self.sources), -1)
        repeated = {}
        for number, (name, part) in enumerate(self.targets.items()):
            indices = part.source[part.source >= 0]
            earlier = holders[indices]
            if (earlier >= 0).any():
                repeated[name] = names[earlier.max()]
            elif np.unique(indices).size < indices.size:
                repeated[name] = name
            holders[indices] = np.where(earlier < 0, number, earlier)
        return repeated

    def _joined(self, arrays: Arrays) -> np.ndarray:
        """Returns all sources end to end, 0 for those that are absent."""
        _check(arrays, self.sources, "sources")
        flat = np.zeros(_total(self.sources), _common_type(arrays))
        for name, array in arrays.items():
            flat[self._slices[name]] = np.ravel(array)
        return flat

    def _gathered(self, arrays: Arrays, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
        """Returns all sources end to end, and which entries the arrays hold."""
        shapes = {name: part.source.shape for name, part in self.targets.items()}
        _check(arrays, shapes, "targets")
        moves = all(self.targets[name].only_moves() for name in arrays)
        dtype = _common_type(arrays) if moves else np.float64
        flat = np.zeros(_total(self.sources), dtype)
        known = np.zeros(len(flat), bool)
        # Backwards, so that of tied targets the first is the last to be written.
        for name in reversed([name for name in self.targets if name in arrays]):
            part = self.targets[name]
            held = part.source >= 0
            indices = part.source[held]
            values = _restored(np.asarray(arrays[name]), part, kind)[held]
            if kind == "gradient":
                np.add.at(flat, indices, values)
            else:
                flat[indices[::-1]] = values[::-1]
            known[indices] = True
        return flat, known


def _converted(flat: np.ndarray, part: Entries, kind: Kind) -> np.ndarray:
    """Returns a target from all sources, flat and end to end."""
    if part.only_moves():
        return flat[part.source]
    held = part.source >= 0
    values = np.where(held, flat[np.maximum(part.source, 0)].astype(np.float64), 0)
    divisor = np.where(held, part.factor, 1)
    if kind == "value":
        return part.factor * values + part.constant
    if kind == "delta":
        return part.factor * values
    return values / divisor ** (2 if kind == "second" else 1)


def _restored(array: np.ndarray, part: Entries, kind: Kind) -> np.ndarray:
    """Returns for each entry of a target that of its source."""
    if part.only_moves():
        return array
    array = array.astype(np.float64)
    divisor = np.where(part.source >= 0, part.factor, 1)
    if kind == "value":
        return (array - part.constant) / divisor
    if kind == "delta":
        return array / divisor
    return array * divisor ** (2 if kind == "second" else 1)


def _probe(shapes: dict[str, tuple[int, ...]], convert: Convert) -> dict[str, Entries]:
    """Returns where each target's entries come from."""
    total = _total(shapes)
    random = np.random.default_rng(0)
    # Of either sign, so that an absolute value is no move.
    samples = [random.uniform(0.5, 2, total) * random.choice([-1, 1], total)]
    samples.append(random.standard_normal(total))
    kind = _array_kind(shapes, convert, samples[0])

    def run(flat: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return _run(shapes, convert, flat, kind)
        except Exception as error:
            raise _failure(error) from error

    constants = run(np.zeros(total))
    units = run(np.full(total, UNIT))
    digits = [run(digit) for digit in _digits(total)]
    tests = [run(sample) for sample in samples]
    found = {}
    for name, constant in constants.items():
        factor = _factor(units[name], constant, tests[0][name])
        source = _source([digit[name] for digit in digits], constant, factor)
        part = Entries(source, factor, constant)
        for sample, test in zip(samples, tests):
            _require(name, part, sample, test[name])
        found[name] = part
    return found


def _digits(total: int) -> Iterator[np.ndarray]:
    """Yields the digits of every index, the lowest first."""
    indices = np.arange(total)
    while True:
        yield (indices % BASE).astype(np.float64)
        indices //= BASE
        if not indices.any():
            return


def _factor(unit: np.ndarray, constant: np.ndarray, sample: np.ndarray) -> np.ndarray:
    factor = (unit - constant) / UNIT
    # What is lost beside a constant is restored for the factors that move entries.
    near = _tolerance(sample) * (1 + np.abs(constant))
    return np.where(np.abs(np.abs(factor) - 1) <= near, np.sign(factor), factor)


def _source(
    digits: list[np.ndarray], constant: np.ndarray, factor: np.ndarray
) -> np.ndarray:
    """Returns the flat index of each entry's source; -2 if there is none."""
    held = factor != 0
    source = np.zeros(constant.shape, np.int64)
    bad = ~np.isfinite(factor)
    for place, digit in enumerate(digits):
        value = np.rint((digit - constant) / np.where(held, factor, 1))
        bad |= ~((value >= 0) & (value < BASE)) & held
        source += np.where(bad, 0, value).astype(np.int64) * BASE**place
    return np.where(bad, -2, np.where(held, source, -1))


def _require(name: str, part: Entries, sample: np.ndarray, result: np.ndarray) -> None:
    """Raises UserError unless a target is what its entries say."""
    inside = (part.source >= -1) & (part.source < sample.size)
    held = (part.source >= 0) & inside
    value = np.zeros(held.shape)
    value[held] = sample[part.source[held]]
    scale = np.abs(part.factor) * (1 + np.abs(value)) + np.abs(part.constant)
    error = np.abs(part.factor * value + part.constant - result)
    good = inside & (error <= _tolerance(result) * scale)
    if not good.all():
        where = ", ".join(str(number) for number in np.argwhere(~good)[0])
        raise UserError(
            f"convert: {name}[{where}] is not an entry of the state_dict, at most "
            "scaled and shifted; convert must only rearrange"
        )


def _tolerance(array: np.ndarray) -> float:
    """Returns a few roundings of the narrowest type that holds the numbers."""
    mantissas, _ = np.frexp(array[np.isfinite(array)])
    for bits in SIGNIFICANT_BITS:
        scaled = mantissas * 2.0**bits
        if (scaled == np.rint(scaled)).all():
            return 2.0 ** (3 - bits)
    return 0.0


def _array_kind(
    shapes: dict[str, tuple[int, ...]], convert: Convert, flat: np.ndarray
) -> str:
    """Returns the library whose arrays the converter is written for."""
    kinds = [kind for kind in LIBRARIES if kind == "numpy" or kind in sys.modules]
    results: dict[str, dict[str, np.ndarray]] = {}
    errors: list[Exception] = []
    for kind in kinds:
        if kind == "jax" and results:
            continue
        # Whatever another library's functions make of an array of NumPy.
        try:
            results[kind] = _run(shapes, convert, flat, kind)
        except Exception as error:
            errors.append(error)
    if not results:
        raise _failure(errors[0])
    # `transpose(0, 1)` leaves a NumPy array as it is, and swaps the axes of a tensor.
    if len(results) > 1 and not _equal(*results.values()):
        raise UserError(
            "convert: it does one thing to NumPy arrays and another to torch tensors, "
            "as x.transpose(0, 1) does; write x.T or x.swapaxes(0, 1)"
        )
    return next(iter(results))


def _equal(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(
        left[name].shape == right[name].shape
        and np.allclose(left[name], right[name], rtol=2.0**-6, equal_nan=True)
        for name in left
    )


def _run(
    shapes: dict[str, tuple[int, ...]], convert: Convert, flat: np.ndarray, kind: str
) -> dict[str, np.ndarray]:
    """Returns the flat, float64 result of a converter."""
    with _double_precision(), np.errstate(all="ignore"):
        arrays = {
            name: LIBRARIES[kind](flat[part].reshape(shapes[name]).copy())
            for name, part in _slices(shapes).items()
        }
        tree = convert(arrays)
        return {name: _in_numpy(leaf) for name, leaf in flatten(tree).items()}


def _failure(error: Exception) -> UserError:
    text = " ".join(str(error).split())
    return UserError(f"convert: it raised {type(error).__name__}: {text}")


def _in_numpy(leaf: Any) -> np.ndarray:
    # NumPy does not know torch's bfloat16.
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu().double()
    return np.asarray(leaf).astype(np.float64)


def _double_precision() -> contextlib.AbstractContextManager:
    """JAX's functions would round float64 if JAX is there and not told otherwise."""
    jax = sys.modules.get("jax")
    return jax.enable_x64(True) if jax else contextlib.nullcontext()


def _slices(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, slice]:
    """Returns the place of each array among all, flat and end to end."""
    slices, start = {}, 0
    for name, shape in shapes.items():
        slices[name] = slice(start, start + math.prod(shape))
        start = slices[name].stop
    return slices


def _total(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _common_type(arrays: Arrays) -> np.dtype:
    return np.result_type(*arrays.values()) if arrays else np.dtype(np.float64)


def _check(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], role: str) -> None:
    for name, array in arrays.items():
        if name not in shapes:
            raise UserError(f"convert: {name} is none of its {role}")
        if np.shape(array) != shapes[name]:
            raise UserError(
                f"convert: {name} is {np.shape(array)}, {shapes[name]} among its {role}"
            )


# Neither torch nor JAX is imported here: who is not there wrote no converter.
LIBRARIES: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": lambda array: array,
    "torch": lambda array: sys.modules["torch"].from_numpy(array),
    "jax": lambda array: sys.modules["jax"].numpy.asarray(array, np.float64),
}
"""Library -> its array of a NumPy array."""

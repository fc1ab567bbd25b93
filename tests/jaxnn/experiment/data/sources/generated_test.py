"""Tests of jaxnn/experiment/data/sources/generated.py."""

import numpy as np
import pytest

from jaxnn.experiment.data.sources.generated import (
    FUNCTIONS,
    GATES,
    GRID_POINTS,
    approximation,
    gates,
    linear,
)
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

LINEAR = Experiment(num_samples=100)


class TestLinear:
    @pytest.mark.parametrize(
        ("samples", "fraction", "tests"),
        [(10_000, 0.2, 2_000), (1, 0.2, 1), (10, 0.5, 5)],
    )
    def test_sizes(self, samples, fraction, tests):
        data = linear(Experiment(num_samples=samples, test_fraction=fraction))
        assert data.train_inputs.shape == data.train_targets.shape == (samples, 1)
        assert data.test_inputs.shape == data.test_targets.shape == (tests, 1)
        assert (data.task, data.num_outputs, data.class_names) == ("regression", 1, ())

    def test_is_exactly_2x_plus_1(self):
        data = linear(Experiment())
        for x, y in (
            (data.train_inputs, data.train_targets),
            (data.test_inputs, data.test_targets),
        ):
            assert x.dtype == y.dtype == np.float32
            np.testing.assert_array_equal(
                y, (2 * x.astype(np.float64) + 1).astype(np.float32)
            )

    def test_draws_are_numpys(self):
        drawn = np.random.default_rng(42).standard_normal((120, 1), dtype=np.float32)
        data = linear(LINEAR)
        np.testing.assert_array_equal(
            np.concatenate([data.train_inputs, data.test_inputs]), drawn, strict=True
        )

    def test_inputs_are_standard_normal(self):
        x = linear(Experiment(num_samples=100_000)).train_inputs.astype(np.float64)
        # Five standard errors.
        assert abs(x.mean()) < 5 / 100_000**0.5
        assert abs(x.var() - 1) < 5 * (2 / 100_000) ** 0.5

    def test_seed_decides(self):
        np.testing.assert_array_equal(
            linear(LINEAR).train_inputs, linear(LINEAR).train_inputs
        )
        assert (
            linear(LINEAR).train_inputs
            != linear(LINEAR.replace(split_seed=1)).train_inputs
        ).all()


class TestGates:
    @pytest.mark.parametrize("gate", GATES)
    def test_is_the_truth_table(self, gate):
        data = gates(Experiment(dataset="gates", gate=gate))
        table = {
            "and": all,
            "or": any,
            "nand": lambda bits: not all(bits),
            "xor": lambda bits: sum(bits) == 1,
        }
        np.testing.assert_array_equal(
            data.train_targets[:, 0], [table[gate](row) for row in data.train_inputs]
        )
        assert {tuple(row) for row in data.train_inputs} == {
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        }
        assert data.train_inputs is data.test_inputs
        assert data.train_targets is data.test_targets
        assert (data.task, data.class_names, data.train_targets.dtype) == (
            "binary",
            ("false", "true"),
            np.float32,
        )

    @pytest.mark.parametrize(
        "change", [dict(num_folds=2), dict(validation_fraction=0.25)]
    )
    def test_holds_nothing_out(self, change):
        with pytest.raises(
            UserError,
            match=f"^--{next(iter(change))}: --dataset=gates is four rows, "
            r"[^\n]*leave",
        ):
            gates(Experiment(dataset="gates", **change))


@pytest.mark.parametrize("function", FUNCTIONS)
class TestApproximation:
    def test_targets_are_the_function(self, function):
        data = approximation(Experiment(function=function, num_samples=100))
        exact = {
            "sine": lambda x: np.sin(2 * np.pi * x),
            "absolute": lambda x: abs(2 * x - 1),
            "square_wave": lambda x: np.where(x < 0.5, 1, -1),
            "runge": lambda x: 1 / (1 + 25 * (2 * x - 1) ** 2),
        }[function]
        for x, y in (
            (data.train_inputs, data.train_targets),
            (data.test_inputs, data.test_targets),
        ):
            assert x.dtype == y.dtype == np.float32
            assert ((x >= 0) & (x <= 1)).all()
            np.testing.assert_array_max_ulp(
                y, exact(x.astype(np.float64)).astype(np.float32), maxulp=1
            )

    def test_sizes_and_grid(self, function):
        data = approximation(
            Experiment(function=function, num_samples=30, validation_fraction=0.1)
        )
        assert (len(data.train_inputs), len(data.validation_inputs)) == (27, 3)
        np.testing.assert_allclose(
            data.test_inputs[:, 0], np.arange(GRID_POINTS) / 1000, rtol=2**-24
        )

"""Tests of torch_ref/engine.py and engine_readers.py, through DeepSpeed itself: every
ZeRO stage, precision and number of ranks.

Every case takes steps on a linear model whose numbers are dyadic and small, so that
loss and gradients of the first step are exact in every format. `python -m
tests.torch_ref.engine_test FOLDER` runs all cases in turn, as one rank.
"""

import functools
import itertools
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.files.artifacts import read_arrays, write_arrays
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed.writing import ds_config
from jaxnn.experiment.ports import free_port
from torch_ref import engine as engines
from torch_ref import (
    engine_readers,
    kernels,
    models,
    optimizers,
    params_io,
    precision,
    ranks,
    train_step,
)

ROWS, FEATURES, OUTPUTS, STEPS = 8, 3, 2, 2
LEARNING_RATE, BETAS, DECAY, CLIP, SCALE_POWER = 0.25, (0.5, 0.75), 0.125, 2.0**-6, 10
UNIT = {"fp32": 2.0**-24, "bf16": 2.0**-8, "fp16": 2.0**-11}
NAMES = ("output/kernel", "output/bias")
INPUTS = np.random.default_rng(0).integers(-1, 2, (ROWS, FEATURES)).astype(np.float32)
TARGETS = (
    np.random.default_rng(1).integers(-2, 3, (ROWS, OUTPUTS)).astype(np.float32) / 16
)
START = {
    "output/kernel": np.array([[1, -0.5], [0.25, 0.75], [-1, 0.5]], np.float32) / 16
    + np.float32(2**-24),
    "output/bias": np.array([0.5, -0.25], np.float32) / 16,
}


class Case(NamedTuple):
    """What one engine is built for; two parts are clipped, one is not."""

    stage: int
    precision: str
    parts: int
    optimizer: str

    def __str__(self):
        return f"{self.optimizer}-stage{self.stage}-{self.precision}-{self.parts}parts"

    @property
    def is_mixed_stage_0(self) -> bool:
        """DeepSpeed's FP16_Optimizer, which makes one update before training
        (MISMATCHES D2)."""
        return self.stage == 0 and self.precision != "fp32"

    @property
    def divisor(self) -> float:
        """What DeepSpeed divides the true gradient by, wrongly: the scale of a loss
        that it did not scale (D1)."""
        return 2.0**SCALE_POWER if (self.stage, self.precision) == (0, "fp16") else 1.0

    def experiment(self) -> Experiment:
        b1, b2 = BETAS
        decay = (
            dict(l2=DECAY, decay_all=False, momentum=0.5)
            if self.optimizer == "momentum"
            else {}
        )
        return Experiment(
            optimizer=self.optimizer,
            learning_rate=LEARNING_RATE,
            adam_b1=b1,
            adam_b2=b2,
            batch_size=ROWS,
            accumulation_steps=self.parts,
            precision=self.precision,
            zero_stage=self.stage,
            clip_norm=CLIP if self.parts > 1 else 0.0,
            initial_scale_power=SCALE_POWER,
            **decay,
        )


CASES = [
    *itertools.starmap(Case, itertools.product(range(4), UNIT, (1, 2), ("adam",))),
    *itertools.starmap(Case, itertools.product(range(4), UNIT, (1,), ("momentum",))),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def main(folder: pathlib.Path) -> None:
    """Runs every case on this rank; writes what the readers said."""
    rank, world_size, _ = ranks.join()
    kernels.fp16_kernels(Experiment())
    for case in CASES:
        write_arrays(
            folder / f"{case}-{world_size}-{rank}.safetensors",
            run_case(case, rank, world_size),
        )
    ranks.shut_down()


def run_case(case: Case, rank: int, world_size: int) -> dict[str, np.ndarray]:
    """Takes the steps, and after them one whose last row is infinite."""
    experiment = case.experiment()
    model = models.build(experiment, Signature((FEATURES,), OUTPUTS))
    params_io.load(model, START, "the test")
    optimizer = optimizers.OPTIMIZERS[case.optimizer](experiment, model.parameters())
    engine = engines.initialize(model, optimizer, ds_config(experiment, world_size))
    said = state(case, engine, 0)
    for number in range(STEPS + 1):
        targets = TARGETS.copy()
        if number == STEPS:
            targets[-1] = np.inf
        mine = slice(rank * ROWS // world_size, (rank + 1) * ROWS // world_size)
        batch = train_step.Batch(
            *map(
                torch.from_numpy,
                (INPUTS[mine], targets[mine], np.ones_like(targets[mine, 0])),
            )
        )
        result, grads = train_step.train_step(
            experiment, engine, batch, number, LEARNING_RATE, rank, world_size, True
        )
        said |= {
            f"grads/{name}/{number}": array
            for name, array in params_io.to_flax(model, grads).items()
        }
        said |= {
            f"loss/{number}": result.loss.numpy(),
            f"scale/{number}": np.array(result.loss_scale),
            f"skipped/{number}": np.array(result.skipped),
        }
        said |= state(case, engine, number + 1)
    return said


def state(case: Case, engine, number: int) -> dict[str, np.ndarray]:
    tensors = {"masters": engine_readers.masters(engine)}
    tensors |= {
        kind: engine_readers.moments(engine, key)
        for kind, key in optimizers.MOMENT_KEYS[case.optimizer].items()
    }
    arrays = {
        f"{kind}/{name}/{number}": array
        for kind, values in tensors.items()
        for name, array in params_io.to_flax(engine.module, values).items()
    }
    return arrays | {
        f"updates/{number}": np.array(engine_readers.updates(engine)),
        f"next_scale/{number}": np.array(engine_readers.loss_scale(engine)),
    }


@pytest.fixture(scope="module", params=[1, 2], ids="{}ranks".format)
def said(request, tmp_path_factory):
    """said(case): what the readers said, the same on every rank."""
    world_size, folder = request.param, tmp_path_factory.mktemp("engine")
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "LOCAL_SIZE": str(world_size),
        "WORLD_SIZE": str(world_size),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.torch_ref.engine_test", str(folder)],
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(world_size)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * world_size, "\n".join(
        outputs
    )
    left = pathlib.Path("/dev/shm").glob(
        f"deepspeed_allreduce_buffer_*_{shared['MASTER_PORT']}_*"
    )
    assert not list(left), "DeepSpeed's shared memory outlives the run"

    @functools.cache
    def read(case: Case) -> dict[str, np.ndarray]:
        first, *others = (
            read_arrays(folder / f"{case}-{world_size}-{rank}.safetensors", "")
            for rank in range(world_size)
        )
        for other in others:
            for name, array in first.items():
                np.testing.assert_array_equal(other[name], array, name)
        return first

    return read


def tensors(
    said: dict[str, np.ndarray], kind: str, number: int
) -> dict[str, np.ndarray]:
    return {name: said[f"{kind}/{name}/{number}"].astype(np.float64) for name in NAMES}


def gradient(
    masters: dict[str, np.ndarray], fmt: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The gradient in float64 from masters rounded to a format, and the sum of its
    terms' sizes."""
    kernel, bias = (
        torch.from_numpy(masters[name]).to(precision.DTYPES[fmt]).double().numpy()
        for name in NAMES
    )
    inputs, targets = INPUTS.astype(np.float64), TARGETS.astype(np.float64)
    residuals = (inputs @ kernel + bias - targets) * 2 / (ROWS * OUTPUTS)
    sizes = (
        (abs(inputs) @ abs(kernel) + abs(bias) + abs(targets)) * 2 / (ROWS * OUTPUTS)
    )
    return (
        {"output/kernel": inputs.T @ residuals, "output/bias": residuals.sum(axis=0)},
        {"output/kernel": abs(inputs).T @ sizes, "output/bias": sizes.sum(axis=0)},
    )


def used_gradient(
    case: Case, said: dict[str, np.ndarray], number: int
) -> dict[str, np.ndarray]:
    """What the optimizer is given: the gradient that was read, clipped by DeepSpeed's
    formula (MISMATCHES D7)."""
    grads = {
        name: array / case.divisor
        for name, array in tensors(said, "grads", number).items()
    }
    norm = np.sqrt(sum(np.sum(array**2) for array in grads.values()))
    factor = min(1.0, CLIP / (norm + 1e-6)) if case.parts > 1 else 1.0
    return {name: factor * array for name, array in grads.items()}


def assert_close(actual, wanted, units: float, sizes=None) -> None:
    """Within so many units of float32's rounding of the sizes, or of the values."""
    for name in NAMES:
        size = abs(wanted[name]) if sizes is None else sizes[name]
        error = abs(actual[name] - wanted[name])
        assert (error <= units * UNIT["fp32"] * size).all(), (name, error.max(), size)


class TestMasters:
    @every_case
    def test_begin_as_rounded_to_the_format(self, said, case):
        """A hair beyond the format's grid is rounded away; FP32 keeps it (MISMATCHES
        D5).

        Before training, stage 0 in 16 bits makes a step of zero gradients, which still
        decays (D2).
        """
        masters = tensors(said(case), "masters", 0)
        for name in NAMES:
            rounded = (
                torch.from_numpy(START[name])
                .to(precision.DTYPES[case.precision])
                .double()
                .numpy()
            )
            decays = (
                case.is_mixed_stage_0
                and case.optimizer == "momentum"
                and name == "output/kernel"
            )
            np.testing.assert_array_equal(
                masters[name],
                rounded * (1 - LEARNING_RATE * DECAY) if decays else rounded,
            )


class TestGradients:
    @every_case
    def test_first_step_exact(self, said, case):
        """Sums of few small dyadic numbers; the hair beyond them, in FP32 alone, costs
        its roundings."""
        wanted, sizes = gradient(tensors(said(case), "masters", 0), case.precision)
        actual = tensors(said(case), "grads", 0)
        if case.precision == "fp32":
            return assert_close(actual, wanted, 20, sizes)
        if (
            case.optimizer == "momentum" and case.is_mixed_stage_0
        ):  # the model is still what it was before the decay
            wanted, _ = gradient(
                {name: array.astype(np.float64) for name, array in START.items()},
                case.precision,
            )
        for name in NAMES:
            np.testing.assert_array_equal(actual[name], wanted[name])

    @every_case
    def test_second_step_within_rounding(self, said, case):
        """At most 20 roundings touch a term: 5 in its output, 1 in each of residual,
        scale and share, 8 rows, and 4 sums over parts and ranks."""
        wanted, sizes = gradient(tensors(said(case), "masters", 1), case.precision)
        actual = tensors(said(case), "grads", 1)
        for name in NAMES:
            assert (
                abs(actual[name] - wanted[name])
                <= 20 * UNIT[case.precision] * sizes[name]
            ).all(), name

    @every_case
    def test_loss_is_the_batchs(self, said, case):
        """Of the first step; exact but for the hair in FP32, whose error counts 20
        roundings again."""
        start = {
            name: torch.from_numpy(array)
            .to(precision.DTYPES[case.precision])
            .double()
            .numpy()
            for name, array in START.items()
        }
        residuals = (
            INPUTS.astype(np.float64) @ start["output/kernel"]
            + start["output/bias"]
            - TARGETS
        )
        loss, wanted = float(said(case)["loss/0"]), np.mean(residuals**2)
        assert abs(loss - wanted) <= (
            20 * UNIT["fp32"] * wanted if case.precision == "fp32" else 0
        )


class TestUpdate:
    """From the gradient that was read, in float64; clipped where the case has two
    parts."""

    @pytest.mark.parametrize("number", range(STEPS))
    @every_case
    def test_moments(self, said, case, number):
        """Products and sums of a few float32 numbers, the clipping factor among them: 8
        roundings."""
        case_said, used = said(case), used_gradient(case, said(case), number)
        if case.optimizer == "adam":
            for kind, beta, power in (("first", BETAS[0], 1), ("second", BETAS[1], 2)):
                before, after = (
                    tensors(case_said, kind, n) for n in (number, number + 1)
                )
                wanted = {
                    name: beta * before[name] + (1 - beta) * used[name] ** power
                    for name in NAMES
                }
                sizes = {
                    name: beta * abs(before[name])
                    + (1 - beta) * abs(used[name] ** power)
                    for name in NAMES
                }
                assert_close(after, wanted, 8, sizes)
        else:
            before, after = (
                tensors(case_said, "first", n) for n in (number, number + 1)
            )
            decay = {
                "output/kernel": DECAY
                * tensors(case_said, "masters", number)["output/kernel"],
                "output/bias": 0,
            }
            wanted = {
                name: 0.5 * before[name] + used[name] + decay[name] for name in NAMES
            }
            sizes = {
                name: 0.5 * abs(before[name]) + abs(used[name]) + abs(decay[name])
                for name in NAMES
            }
            assert_close(after, wanted, 8, sizes)

    @pytest.mark.parametrize("number", range(STEPS))
    @every_case
    def test_masters(self, said, case, number):
        """From the moments that were read: 8 roundings of the update and one of the
        sum, at most 10 of both sizes."""
        case_said = said(case)
        before, after, first = (
            tensors(case_said, kind, n)
            for kind, n in (
                ("masters", number),
                ("masters", number + 1),
                ("first", number + 1),
            )
        )
        update = first
        if case.optimizer == "adam":
            t, second = (
                int(case_said[f"updates/{number}"]) + 1,
                tensors(case_said, "second", number + 1),
            )
            update = {
                name: first[name]
                / (1 - BETAS[0] ** t)
                / (np.sqrt(second[name] / (1 - BETAS[1] ** t)) + Experiment().adam_eps)
                for name in NAMES
            }
        wanted = {name: before[name] - LEARNING_RATE * update[name] for name in NAMES}
        assert_close(
            after,
            wanted,
            10,
            {name: abs(before[name]) + abs(update[name]) for name in NAMES},
        )

    @every_case
    def test_counter(self, said, case):
        """Adam's own begins at 1 at stage 0 in 16 bits (MISMATCHES D2); the overflow at
        the end does not count."""
        early = case.is_mixed_stage_0 and case.optimizer == "adam"
        counts = [int(said(case)[f"updates/{number}"]) for number in range(STEPS + 2)]
        assert counts == [count + early for count in (0, 1, 2, 2)]


class TestStep:
    @every_case
    def test_what_is_not_finite_changes_nothing(self, said, case):
        """The infinite row is the last rank's; every rank skips."""
        case_said = said(case)
        assert [
            bool(case_said[f"skipped/{number}"]) for number in range(STEPS + 1)
        ] == [False, False, True]
        for name, array in case_said.items():
            if name.endswith(f"/{STEPS + 1}") and not name.startswith("next_scale"):
                np.testing.assert_array_equal(
                    array, case_said[f"{name.rpartition('/')[0]}/{STEPS}"], name
                )

    @every_case
    def test_loss_scale(self, said, case):
        """An overflow uses up one of two lives of the scale; at stage 0 it halves at
        once (MISMATCHES D4)."""
        start = 2.0**SCALE_POWER if case.precision == "fp16" else 1.0
        assert [
            float(said(case)[f"scale/{number}"]) for number in range(STEPS + 1)
        ] == [start] * (STEPS + 1)
        halves = (case.stage, case.precision) == (0, "fp16")
        assert float(said(case)[f"next_scale/{STEPS + 1}"]) == (
            start / 2 if halves else start
        )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
    ranks.leave(0)

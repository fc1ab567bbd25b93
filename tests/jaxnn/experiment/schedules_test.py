"""Tests of jaxnn/experiment/schedules.py against torch, DeepSpeed and optax.

Every rate must agree to one float32 ulp: two libraries may differ in the last bit of
float64, which may turn the rounding.
"""

import math
import warnings

import jax
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment import schedules
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

RATES = st.floats(1e-6, 10)
STEPS = st.integers(1, 300)
FLOORS = st.floats(0, 1)
fast = settings(deadline=None, max_examples=20, derandomize=True)


@pytest.fixture(scope="module")
def deepspeed_schedules():
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from deepspeed.runtime import lr_schedules

        # They warn that the rate is read before the first step().
        patch.setattr(lr_schedules.logger, "warning", lambda message: None)
        yield lr_schedules


def used(make_scheduler, rate: float, steps: int) -> np.ndarray:
    """The rates of an optimizer that steps before its scheduler, as engines do it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=rate)
    rates = []
    scheduler = make_scheduler(optimizer)
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # torch's OneCycleLR raises an error after its last step.
        if len(rates) < steps:
            scheduler.step()
    return np.array(rates, np.float32)


def evaluated(schedule, steps: int) -> np.ndarray:
    """An optax schedule in float64, rounded once."""
    # optax relies on type promotion, which tests/conftest.py forbids.
    with jax.numpy_dtype_promotion("standard"):
        return np.array([schedule(np.float64(step)) for step in range(steps)]).astype(
            np.float32
        )


def check(experiment: Experiment, steps: int, theirs: np.ndarray) -> None:
    """Compares to one float32 ulp, and near zero to four float64 ulps of the peak."""
    # Rates near zero are differences of larger numbers.
    atol = 4 * np.finfo(np.float64).eps * experiment.learning_rate
    ours = schedules.learning_rates(experiment, steps)
    np.testing.assert_allclose(ours, theirs, rtol=np.finfo(np.float32).eps, atol=atol)


@st.composite
def warmups(draw, shortest=1):
    """peak, floor, steps of the warm-up, steps of the run: the warm-up fits."""
    warmup = draw(st.integers(shortest, 50))
    peak = draw(RATES)
    return peak, peak * draw(FLOORS), warmup, draw(st.integers(warmup + 1, 300))


@st.composite
def any_warmups(draw):
    """The same, and the run may end before the peak, as DeepSpeed lets it."""
    peak = draw(RATES)
    return peak, peak * draw(FLOORS), draw(st.integers(1, 50)), draw(STEPS)


class TestLearningRates:
    def test_names_are_the_flags_choices(self):
        assert (
            tuple(schedules.SCHEDULES)
            == Experiment.__dataclass_fields__["schedule"].metadata["choices"]
        )

    @given(RATES, STEPS)
    @fast
    def test_constant_is_the_rate_rounded_once(self, rate, steps):
        table = schedules.learning_rates(Experiment(learning_rate=rate), steps)
        np.testing.assert_array_equal(
            table, np.full(steps, rate, np.float32), strict=True
        )

    @pytest.mark.parametrize("schedule", schedules.SCHEDULES)
    def test_every_table_is_float32_of_the_runs_length(self, schedule):
        warmup = 3 if schedule in schedules.WITH_WARMUP else 0
        table = schedules.learning_rates(
            Experiment(schedule=schedule, warmup_steps=warmup), 10
        )
        assert (table.dtype, table.shape) == (np.float32, (10,))
        assert table.max() <= np.float32(1e-3)

    def test_a_run_cut_short_may_be_longer_than_its_schedule(self):
        flags = dict(schedule="cosine", schedule_steps=9, max_steps=4)
        rates = schedules.learning_rates(Experiment().replace(**flags), 10)
        assert len(rates) == 9

    @pytest.mark.parametrize("schedule", schedules.WITH_END)
    def test_schedule_steps_is_the_table_of_a_longer_run(self, schedule):
        experiment = Experiment(
            schedule=schedule, warmup_steps=3 if "warmup" in schedule else 0
        )
        longer = schedules.learning_rates(experiment, 20)
        np.testing.assert_array_equal(
            schedules.learning_rates(experiment.replace(schedule_steps=20), 10),
            longer[:10],
        )
        assert (schedules.learning_rates(experiment, 10) != longer[:10]).any()

    @pytest.mark.parametrize(
        ("flags", "steps", "line"),
        [
            (
                dict(schedule="linear_warmup"),
                10,
                "--warmup_steps: --schedule=linear_warmup needs the number",
            ),
            (
                dict(schedule="warmup_lr"),
                10,
                "--warmup_steps: --schedule=warmup_lr needs the number",
            ),
            (
                dict(schedule="warmup_cosine", warmup_steps=10),
                10,
                "--warmup_steps: 10 steps until the peak do not fit",
            ),
            (
                dict(schedule="one_cycle", warmup_steps=11),
                10,
                "--warmup_steps: 11 steps until the peak do not fit into a schedule "
                "of 10; lower it or raise --epochs$",
            ),
            (
                dict(schedule="warmup_cosine", warmup_steps=9, schedule_steps=9),
                5,
                "--warmup_steps: 9 .* of 9; lower it or raise --schedule_steps$",
            ),
            (
                dict(schedule="one_cycle", warmup_steps=1),
                10,
                "--warmup_steps: --schedule=one_cycle needs at least 2",
            ),
            (
                dict(schedule="one_cycle", min_learning_rate=1e-4),
                10,
                "--min_learning_rate: --schedule=one_cycle has no",
            ),
            (
                dict(schedule="cosine", schedule_steps=9),
                10,
                "--schedule_steps: the schedule ends after 9 of the run's 10 ",
            ),
            (
                dict(schedule_steps=9),
                5,
                "--schedule_steps: --schedule=constant has no end; leave it out",
            ),
            (
                dict(final_learning_rate=1e-4),
                5,
                "--final_learning_rate: --schedule=constant has no use for it",
            ),
            (
                dict(schedule="step", decay_rate=10.0, decay_steps=1),
                1000,
                "--decay_rate: 10 every 1 steps .* at step 42 ",
            ),
        ],
    )
    def test_a_schedule_that_cannot_be_is_refused_in_one_line(self, flags, steps, line):
        with pytest.raises(UserError, match=f"^{line}[^\n]*$"):
            schedules.learning_rates(Experiment(**flags), steps)


class TestStep:
    @given(RATES, st.floats(0.05, 1.5), st.integers(1, 100), STEPS)
    @fast
    def test_is_torchs_step_lr(self, peak, factor, every, steps):
        # At most twenty drops keep the rates within float32.
        every = max(every, steps // 20 + 1)
        experiment = Experiment(
            schedule="step", learning_rate=peak, decay_rate=factor, decay_steps=every
        )
        theirs = used(
            lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, every, factor),
            peak,
            steps,
        )
        check(experiment, steps, theirs)


class TestExponential:
    @given(RATES, st.floats(0.9, 1.1), STEPS)
    @fast
    def test_is_torchs_exponential_lr(self, peak, factor, steps):
        experiment = Experiment(
            schedule="exponential", learning_rate=peak, decay_rate=factor, decay_steps=1
        )
        theirs = used(
            lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, factor),
            peak,
            steps,
        )
        check(experiment, steps, theirs)

    @given(RATES, st.floats(0.05, 2), st.integers(10, 500), STEPS)
    @fast
    def test_is_optaxs_without_stairs(self, peak, factor, every, steps):
        experiment = Experiment(
            schedule="exponential",
            learning_rate=peak,
            decay_rate=factor,
            decay_steps=every,
        )
        with jax.enable_x64(True):
            theirs = evaluated(optax.exponential_decay(peak, every, factor), steps)
        check(experiment, steps, theirs)


class TestCosine:
    @given(RATES, STEPS)
    @fast
    def test_is_the_formula(self, rate, steps):
        formula = [
            rate * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)
        ]
        check(
            Experiment(learning_rate=rate, schedule="cosine"),
            steps,
            np.array(formula, np.float32),
        )

    @given(RATES, FLOORS, STEPS)
    @fast
    def test_is_optaxs(self, rate, share, steps):
        experiment = Experiment(
            learning_rate=rate, min_learning_rate=rate * share, schedule="cosine"
        )
        with jax.enable_x64(True):
            theirs = evaluated(optax.cosine_decay_schedule(rate, steps, share), steps)
        check(experiment, steps, theirs)

    @given(RATES, FLOORS, STEPS)
    @fast
    def test_falls_from_the_peak_and_stays_above_the_floor(self, rate, share, steps):
        experiment = Experiment(
            learning_rate=rate, min_learning_rate=rate * share, schedule="cosine"
        )
        table = schedules.learning_rates(experiment, steps)
        assert table[0] == np.float32(rate)
        assert (np.diff(table) <= 0).all()
        assert table[-1] >= np.float32(rate * share)
        assert table[-1] > 0


class TestLinearWarmup:
    @given(warmups())
    @fast
    def test_is_optaxs(self, drawn):
        peak, floor, warmup, steps = drawn
        experiment = Experiment(
            schedule="linear_warmup",
            learning_rate=peak,
            min_learning_rate=floor,
            warmup_steps=warmup,
        )
        with jax.enable_x64(True):
            theirs = evaluated(optax.linear_schedule(floor, peak, warmup), steps)
        check(experiment, steps, theirs)


class TestWarmupCosine:
    @given(warmups())
    @fast
    def test_is_optaxs(self, drawn):
        peak, floor, warmup, steps = drawn
        experiment = Experiment(
            schedule="warmup_cosine",
            learning_rate=peak,
            min_learning_rate=floor,
            warmup_steps=warmup,
        )
        with jax.enable_x64(True):
            theirs = evaluated(
                optax.warmup_cosine_decay_schedule(floor, peak, warmup, steps, floor),
                steps,
            )
        check(experiment, steps, theirs)


class TestOneCycle:
    @given(warmups(shortest=2))
    @fast
    def test_is_torchs(self, drawn):
        peak, _, warmup, steps = drawn
        experiment = Experiment(
            schedule="one_cycle", learning_rate=peak, warmup_steps=warmup
        )
        check(experiment, steps, self.torchs(peak, steps, warmup / steps))

    @given(RATES, STEPS)
    @fast
    def test_without_warmup_steps_it_rises_for_three_tenths(self, peak, steps):
        experiment = Experiment(schedule="one_cycle", learning_rate=peak)
        check(experiment, steps, self.torchs(peak, steps, 0.3))

    def torchs(self, peak, steps, share):
        return used(
            lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                peak,
                total_steps=steps,
                pct_start=share,
                cycle_momentum=False,
            ),
            peak,
            steps,
        )


@pytest.mark.parametrize("curve", ["log", "linear"])
class TestDeepSpeeds:
    @given(drawn=any_warmups())
    @fast
    def test_warmup_lr(self, deepspeed_schedules, curve, drawn):
        def theirs(optimizer, floor, peak, warmup, steps):
            return deepspeed_schedules.WarmupLR(optimizer, floor, peak, warmup, curve)

        self.compare("warmup_lr", curve, drawn, theirs)

    @given(drawn=any_warmups())
    @fast
    def test_warmup_decay_lr(self, deepspeed_schedules, curve, drawn):
        def theirs(optimizer, floor, peak, warmup, steps):
            return deepspeed_schedules.WarmupDecayLR(
                optimizer, steps, floor, peak, warmup, curve
            )

        self.compare("warmup_decay_lr", curve, drawn, theirs)

    @given(drawn=any_warmups())
    @fast
    def test_warmup_cosine_lr(self, deepspeed_schedules, curve, drawn):
        def theirs(optimizer, floor, peak, warmup, steps):
            return deepspeed_schedules.WarmupCosineLR(
                optimizer, steps, floor / peak, warmup, floor / peak, curve
            )

        self.compare("warmup_cosine_lr", curve, drawn, theirs)

    @pytest.mark.parametrize(
        ("schedule", "first"),
        [("warmup_lr", 0.1), ("warmup_decay_lr", 0.1), ("warmup_cosine_lr", 0)],
    )
    def test_two_steps_pass_before_it_rises(self, curve, schedule, first):
        experiment = Experiment(
            schedule=schedule,
            learning_rate=1.0,
            min_learning_rate=0.1,
            warmup_steps=5,
            warmup_type=curve,
        )
        table = schedules.learning_rates(experiment, 20)
        np.testing.assert_array_equal(table[:2], np.float32([first, 0.1]))
        assert table[2] > table[1]

    def compare(self, schedule, curve, drawn, make):
        peak, floor, warmup, steps = drawn
        experiment = Experiment(
            schedule=schedule,
            learning_rate=peak,
            min_learning_rate=floor,
            warmup_steps=warmup,
            warmup_type=curve,
        )
        theirs = used(
            lambda optimizer: make(optimizer, floor, peak, warmup, steps), peak, steps
        )
        check(experiment, steps, theirs)

"""Tests of jaxnn/loss_scaling.py against DeepSpeed's own scalers."""

import contextlib
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import loss_scaling
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import consistency
from jaxnn.experiment.flags.config import Experiment

STEPS = 64


@pytest.fixture(scope="module")
def deepspeed_scaler():
    """experiment -> the scaler that ZeRO builds from its ds_config; rank 1, which
    prints nothing."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from deepspeed.runtime.fp16 import loss_scaler

        patch.setattr(loss_scaler.dist, "get_rank", lambda: 1)
        patch.setattr(loss_scaler, "log_dist", lambda *args, **kwargs: None)
        yield lambda experiment: loss_scaler.CreateLossScaler(
            torch.half,
            experiment.static_loss_scale,
            not experiment.static_loss_scale,
            dict(
                init_scale=2**experiment.initial_scale_power,
                scale_window=experiment.loss_scale_window,
                min_scale=experiment.min_loss_scale,
                delayed_shift=experiment.hysteresis,
                consecutive_hysteresis=experiment.consecutive_hysteresis,
            ),
        )


@functools.cache
def scanned_updates(consecutive, static):
    """Our states before each of STEPS steps and after them, and whether each was
    exhausted; compiled once."""

    def scan(state, overflows, window, hysteresis, smallest):
        experiment = scaler(
            consecutive_hysteresis=consecutive, static_loss_scale=static
        ).replace(
            loss_scale_window=window, hysteresis=hysteresis, min_loss_scale=smallest
        )

        def body(state, overflow):
            after = loss_scaling.update_loss_scale(
                state, overflow | jnp.isinf(state.scale), experiment
            )
            return after, (state, loss_scaling.is_exhausted(state, experiment))

        after, (states, exhausted) = jax.lax.scan(body, state, overflows)
        return jax.tree.map(lambda *x: jnp.append(*x), states, after), exhausted

    return jax.jit(scan)


def our_states(experiment, overflows):
    """(scale, clean steps, hysteresis) before each step and after the last, and whether
    each was exhausted."""
    padded = np.zeros(STEPS, bool)
    padded[: len(overflows)] = overflows
    scan = scanned_updates(
        experiment.consecutive_hysteresis, experiment.static_loss_scale
    )
    states, exhausted = scan(
        loss_scaling.initial_loss_scale(experiment),
        padded,
        experiment.loss_scale_window,
        experiment.hysteresis,
        experiment.min_loss_scale,
    )
    return list(zip(*map(np.asarray, states)))[: len(overflows) + 1], np.asarray(
        exhausted
    )[: len(overflows)]


def their_state(theirs):
    """As ours; theirs counts all steps, where ours counts those since the last
    overflow."""
    with np.errstate(over="ignore"):
        return (
            np.float32(theirs.loss_scale),
            theirs.cur_iter - theirs.last_overflow_iter - 1,
            theirs.cur_hysteresis,
        )


def scaler(**flags):
    return Experiment(precision="fp16", **flags)


class TestInitialLossScale:
    def test_fp16_starts_at_the_power(self):
        state = loss_scaling.initial_loss_scale(
            scaler(initial_scale_power=5, hysteresis=3)
        )
        assert (float(state.scale), int(state.clean_steps), int(state.hysteresis)) == (
            32,
            0,
            3,
        )

    def test_fp16_starts_at_the_static_scale(self):
        assert (
            loss_scaling.initial_loss_scale(
                scaler(static_loss_scale=1000.0, initial_scale_power=5)
            ).scale
            == 1000
        )

    @pytest.mark.parametrize("static", [0.0, 128.0])
    @pytest.mark.parametrize("name", ["fp64", "fp32", "bf16"])
    def test_other_formats_are_not_scaled(self, name, static):
        assert (
            loss_scaling.initial_loss_scale(
                Experiment(precision=name, static_loss_scale=static)
            ).scale
            == 1
        )


class TestUpdateLossScale:
    @settings(deadline=None, max_examples=400, derandomize=True)
    @given(
        power=st.sampled_from([0, 3, 4, 16, 24, 126, 127]),
        window=st.integers(1, 6),
        hysteresis=st.integers(1, 4),
        consecutive=st.booleans(),
        smallest=st.sampled_from([0.25, 1.0, 6.0, 8.0]),
        overflows=st.lists(st.booleans(), max_size=STEPS),
    )
    def test_is_deepspeeds_at_every_step(
        self,
        deepspeed_scaler,
        power,
        window,
        hysteresis,
        consecutive,
        smallest,
        overflows,
    ):
        """Where DeepSpeed gives up, `is_exhausted` says so, and nowhere before. An
        infinite scale always overflows."""
        experiment = scaler(
            initial_scale_power=power,
            loss_scale_window=window,
            hysteresis=hysteresis,
            consecutive_hysteresis=consecutive,
            min_loss_scale=min(smallest, 2.0**power),
        )
        theirs = deepspeed_scaler(experiment)
        ours, exhausted = our_states(experiment, overflows)
        for step, overflow in enumerate(overflows):
            assert ours[step] == their_state(theirs)
            overflow |= bool(np.isinf(ours[step][0]))
            if overflow and exhausted[step]:
                with pytest.raises(Exception, match="loss scale already at minimum"):
                    theirs.update_scale(overflow)
                return
            theirs.update_scale(overflow)
        assert ours[-1] == their_state(theirs)

    @settings(deadline=None, max_examples=20, derandomize=True)
    @given(
        scale=st.sampled_from([1.0, 0.3, 128.0, 1000.0]),
        overflows=st.lists(st.booleans(), max_size=STEPS),
    )
    def test_a_static_scale_never_changes_nor_exhausts(
        self, deepspeed_scaler, scale, overflows
    ):
        experiment = scaler(
            static_loss_scale=scale,
            hysteresis=1,
            loss_scale_window=1,
            min_loss_scale=1.0,
        )
        theirs = deepspeed_scaler(experiment)
        ours, exhausted = our_states(experiment, overflows)
        assert not exhausted.any()
        for step, overflow in enumerate(overflows):
            assert ours[step][0] == np.float32(theirs.loss_scale) == np.float32(scale)
            theirs.update_scale(overflow)

    def test_comes_back_from_an_infinite_scale(self, deepspeed_scaler):
        """Gradients of zero let the scale double beyond float32; the first others find
        the way back."""
        experiment = scaler(initial_scale_power=127, loss_scale_window=1, hysteresis=1)
        overflows = [False, False, True, False]
        theirs, scales = deepspeed_scaler(experiment), []
        for overflow in overflows:
            theirs.update_scale(overflow)
            scales.append(their_state(theirs)[0])
        assert [state[0] for state in our_states(experiment, overflows)[0]][
            1:
        ] == scales
        np.testing.assert_array_equal(
            scales, np.float32([2.0**127, np.inf, 2.0**127, 2.0**127])
        )

    @pytest.mark.parametrize(
        ("consecutive", "scales"), [(False, [16, 16, 16, 8]), (True, [16, 16, 16, 16])]
    )
    def test_a_clean_step_between_two_overflows(self, consecutive, scales):
        """Hysteresis 2: it refills the one, or they add up to a halving."""
        experiment = scaler(
            initial_scale_power=4, hysteresis=2, consecutive_hysteresis=consecutive
        )
        assert [
            state[0] for state in our_states(experiment, [True, False, True])[0]
        ] == scales

    def test_a_start_below_the_smallest_scale_is_refused_or_deepspeeds(
        self, deepspeed_scaler
    ):
        """DeepSpeed's scale would *rise* to the smallest on the first overflow."""
        experiment = scaler(initial_scale_power=2, hysteresis=1, min_loss_scale=16.0)
        theirs = deepspeed_scaler(experiment)
        theirs.update_scale(True)
        with contextlib.suppress(UserError):
            consistency.check(experiment)
            ours, exhausted = our_states(experiment, [True])
            assert not exhausted[0]
            assert ours[1][0] == theirs.loss_scale

    def test_grows_on_the_1001st_clean_step_then_every_1000(self):
        experiment = scaler()
        _, scales = jax.lax.scan(
            lambda state, overflow: (
                loss_scaling.update_loss_scale(state, overflow, experiment),
                state.scale,
            ),
            loss_scaling.initial_loss_scale(experiment),
            jnp.zeros(2002, bool),
        )
        np.testing.assert_array_equal(
            scales, np.repeat(np.float32([2**16, 2**17, 2**18]), [1001, 1000, 1])
        )


class TestIsExhausted:
    @pytest.mark.parametrize(
        ("scale", "hysteresis", "expected"),
        [(1, 1, True), (1, 2, False), (2, 1, False)],
    )
    def test_only_at_the_smallest_scale_without_hysteresis(
        self, scale, hysteresis, expected
    ):
        state = loss_scaling.LossScale(
            jnp.float32(scale), jnp.int32(0), jnp.int32(hysteresis)
        )
        assert (
            bool(loss_scaling.is_exhausted(state, scaler(min_loss_scale=1.0)))
            == expected
        )

    def test_never_of_a_static_scale(self):
        state = loss_scaling.LossScale(jnp.float32(1), jnp.int32(0), jnp.int32(1))
        assert not loss_scaling.is_exhausted(state, scaler(static_loss_scale=1.0))

"""Tests of jaxnn/precision.py; the loss scaler against DeepSpeed's own."""

import contextlib
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn import precision
from jaxnn.experiment import config
from jaxnn.experiment.config import PRECISIONS, Experiment


@pytest.fixture(scope="module")
def deepspeed_scaler():
    """DeepSpeed's DynamicLossScaler as ZeRO builds it; rank 1, which prints nothing."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from deepspeed.runtime.fp16 import loss_scaler

        patch.setattr(loss_scaler.dist, "get_rank", lambda: 1)
        yield lambda experiment: loss_scaler.DynamicLossScaler(
            init_scale=2**experiment.initial_scale_power, scale_window=experiment.loss_scale_window,
            min_scale=experiment.min_loss_scale, delayed_shift=experiment.hysteresis, consecutive_hysteresis=False)


@functools.cache
def jitted_update(experiment):
    return jax.jit(lambda state, overflow: (precision.is_exhausted(state, experiment),
                                            precision.update_loss_scale(state, overflow, experiment)))


def scaler(**flags):
    return Experiment(precision="fp16", **flags)


class TestPolicies:
    def test_every_precision_has_one(self):
        assert tuple(precision.POLICIES) == PRECISIONS

    @pytest.mark.parametrize(("name", "compute", "master"), [
        ("fp64", "float64", "float64"), ("fp32", "float32", "float32"), ("bf16", "bfloat16", "float32"),
        ("fp16", "float16", "float32")])
    def test_formats(self, name, compute, master):
        policy = precision.POLICIES[name]
        assert (jnp.dtype(policy.compute).name, jnp.dtype(policy.master).name) == (compute, master)


class TestCast:
    def test_casts_floats_and_leaves_integers(self):
        tree = {"a": jnp.array([1.0, 1 / 3]), "b": (jnp.array([7]), jnp.array([True]), jnp.ones(1, jnp.bfloat16))}
        out = precision.cast(tree, jnp.float16)
        assert [leaf.dtype.name for leaf in jax.tree.leaves(out)] == ["float16", "int32", "bool", "float16"]
        np.testing.assert_array_equal(out["a"], np.array([1, 1 / 3], np.float16))
        np.testing.assert_array_equal(out["b"][0], [7])


class TestAtLeastFloat32:
    @pytest.mark.parametrize(("given", "expected"), [
        ("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")])
    def test_widens_what_is_narrower(self, given, expected):
        with jax.enable_x64(True):
            x = jnp.asarray([1 / 3], given)
            np.testing.assert_array_equal(precision.at_least_float32(x), np.asarray(x).astype(expected), strict=True)


class TestInitialLossScale:
    def test_fp16_starts_at_the_power(self):
        state = precision.initial_loss_scale(scaler(initial_scale_power=5, hysteresis=3))
        assert (float(state.scale), int(state.clean_steps), int(state.hysteresis)) == (32, 0, 3)

    @pytest.mark.parametrize("name", ["fp64", "fp32", "bf16"])
    def test_other_formats_are_not_scaled(self, name):
        assert precision.initial_loss_scale(Experiment(precision=name)).scale == 1


class TestUpdateLossScale:
    @pytest.mark.parametrize("window", [1, 2, 3, 5])
    @pytest.mark.parametrize("hysteresis", [1, 2, 3])
    @pytest.mark.parametrize("smallest", [1.0, 8.0, 6.0, 0.25])
    @settings(deadline=None, max_examples=30, derandomize=True)
    @given(overflows=st.lists(st.booleans(), max_size=60))
    def test_is_deepspeeds_at_every_step(self, deepspeed_scaler, window, hysteresis, smallest, overflows):
        """Where DeepSpeed gives up, `is_exhausted` says so, and nowhere before."""
        experiment = scaler(initial_scale_power=4, loss_scale_window=window, hysteresis=hysteresis,
                            min_loss_scale=smallest)
        theirs, ours = deepspeed_scaler(experiment), precision.initial_loss_scale(experiment)
        for overflow in overflows:
            assert float(ours.scale) == theirs.loss_scale
            exhausted, ours = jitted_update(experiment)(ours, overflow)
            if overflow and exhausted:
                with pytest.raises(Exception, match="loss scale already at minimum"):
                    theirs.update_scale(overflow)
                return
            theirs.update_scale(overflow)
        assert float(ours.scale) == theirs.loss_scale
        assert int(ours.hysteresis) == theirs.cur_hysteresis

    def test_a_start_below_the_smallest_scale_is_refused_or_deepspeeds(self, deepspeed_scaler):
        """DeepSpeed's scale would *rise* to the smallest on the first overflow."""
        experiment = scaler(initial_scale_power=2, hysteresis=1, min_loss_scale=16.0)
        theirs = deepspeed_scaler(experiment)
        theirs.update_scale(True)
        with contextlib.suppress(config.UserError):
            config.check(experiment)
            exhausted, ours = jitted_update(experiment)(precision.initial_loss_scale(experiment), True)
            assert not exhausted
            assert float(ours.scale) == theirs.loss_scale

    def test_grows_on_the_1001st_clean_step_then_every_1000(self):
        experiment = scaler()
        _, scales = jax.lax.scan(lambda state, overflow: (
            precision.update_loss_scale(state, overflow, experiment), state.scale),
            precision.initial_loss_scale(experiment), jnp.zeros(2002, bool))
        np.testing.assert_array_equal(scales, np.repeat(np.float32([2**16, 2**17, 2**18]), [1001, 1000, 1]))


class TestIsExhausted:
    @pytest.mark.parametrize(("scale", "hysteresis", "expected"), [
        (1, 1, True), (1, 2, False), (2, 1, False)])
    def test_only_at_the_smallest_scale_without_hysteresis(self, scale, hysteresis, expected):
        state = precision.LossScale(jnp.float32(scale), jnp.int32(0), jnp.int32(hysteresis))
        assert bool(precision.is_exhausted(state, scaler(min_loss_scale=1.0))) == expected

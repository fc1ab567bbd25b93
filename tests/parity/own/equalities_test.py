"""Tests of parity/own/equalities.py: what holds to the bit, on made-up steps."""

import ml_dtypes
import numpy as np
import pytest

from parity.own import equalities
from parity.own.equalities import LossScaleRules

BF16 = np.dtype(ml_dtypes.bfloat16)
W = np.array([1.0, 1 / 3], np.float32)


def broken(measurements):
    return [(m.quantity, m.tensor) for m in measurements if m.z > 0]


class TestStateKept:
    @pytest.mark.parametrize("kind", ["params", "moments", "buffers"])
    def test_a_step_begins_where_the_last_one_ended(self, kind):
        after = equalities.CARRIED[kind]
        kept = equalities.state_kept(1, {f"{kind}/w": W}, {f"{after}/w": W})
        assert [(m.tensor, m.z) for m in kept] == [(f"{kind}/w", 0.0)]

    def test_a_bit_is_seen(self):
        moved = np.nextafter(W, np.float32(2))
        found = equalities.state_kept(1, {"params/w": W}, {"updated/w": moved})
        assert broken(found) == [("params", "params/w")]

    def test_what_was_not_recorded_is_left_out(self):
        assert not list(equalities.state_kept(1, {"params/w": W}, {}))


class TestWeightsRead:
    def test_they_are_the_masters_rounded(self):
        step = {"params/w": W, "forward/w": W.astype(BF16)}
        assert [m.z for m in equalities.weights_read(0, step)] == [0.0]

    def test_others_are_broken(self):
        step = {"params/w": W, "forward/w": (W * 1.1).astype(BF16)}
        assert broken(equalities.weights_read(0, step)) == [("weights_read", "w")]

    def test_without_a_master_there_is_nothing_to_say(self):
        assert not list(equalities.weights_read(0, {"forward/w": W.astype(BF16)}))


class TestUpdateCounted:
    @pytest.mark.parametrize(
        ("skipped", "count", "holds"),
        [(False, 4, True), (True, 3, True), (True, 4, False), (False, 3, False)],
    )
    def test_a_skipped_step_is_no_update(self, skipped, count, holds):
        previous = {"optimizer_step": np.int32(3), "skipped": np.bool_(skipped)}
        step = {"optimizer_step": np.int32(count)}
        found = equalities.update_counted(1, step, previous)
        assert (not broken(found)) == holds


def meta(stage=1, first_step=0, precision="fp16", **fp16):
    config = {"fp16": {"enabled": True, "initial_scale_power": 4, **fp16}}
    return {
        "precision": precision,
        "zero_stage": stage,
        "config": config,
        "first_step": first_step,
    }


def scales(rules, skips):
    """Returns the scale that the rules demand at each step."""
    found = []
    for number, skipped in enumerate(skips):
        for scale in 2.0 ** np.arange(-2, 20):
            step = {"loss_scale": np.float32(scale), "skipped": np.bool_(skipped)}
            state = rules._state
            if not broken(rules.judge(number, step)):
                found.append(float(scale))
                break
            rules._state = state
    return found


class TestLossScaleRules:
    def test_the_second_overflow_in_a_row_halves_it(self):
        rules = LossScaleRules(meta(hysteresis=2))
        assert scales(rules, [True, True, False]) == [16, 16, 8]

    def test_without_zero_each_overflow_halves_it(self):
        rules = LossScaleRules(meta(stage=0, hysteresis=2))
        assert scales(rules, [True, True, False]) == [16, 8, 4]

    def test_it_doubles_after_a_window_without_overflow(self):
        rules = LossScaleRules(meta(loss_scale_window=2))
        assert scales(rules, [False] * 6) == [16, 16, 16, 32, 32, 64]

    def test_grows_tells_of_the_doubling(self):
        rules = LossScaleRules(meta(loss_scale_window=2))
        step = {"loss_scale": np.float32(16), "skipped": np.bool_(False)}
        told = []
        for number in range(3):
            told.append(rules.grows(step))
            list(rules.judge(number, step))
        assert told == [False, False, True]

    @pytest.mark.parametrize(
        "unknown",
        [
            meta(precision="bf16"),
            meta(first_step=3),
            {"precision": "fp16", "config": None, "zero_stage": None},
            {"precision": "fp32"},
        ],
    )
    def test_says_nothing_of_other_scalers(self, unknown):
        rules = LossScaleRules(unknown)
        step = {"loss_scale": np.float32(1), "skipped": np.bool_(False)}
        assert not list(rules.judge(0, step))
        assert not rules.grows(step)

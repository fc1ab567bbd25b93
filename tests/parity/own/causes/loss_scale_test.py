"""Loss scales by other rules than DeepSpeed's, on made-up steps."""

from types import SimpleNamespace

import numpy as np
import pytest

from parity.measured.difference import Difference
from parity.own.causes import loss_scale, optimizer
from parity.own.environment import of_a_port
from parity.own.equalities import LossScaleRules
from tests.parity.own.equalities_test import meta

FLOWN = [False] * 2 + [True] + [False] * 5


def port_of(scales, skips, settings):
    """A port whose recording is nothing but loss scales."""
    steps = [
        {"loss_scale": np.float32(scale), "skipped": np.bool_(skipped)}
        for scale, skipped in zip(scales, skips)
    ]

    class Ported:
        meta = settings

        def __len__(self):
            return len(steps)

        def raw(self, number):
            return steps[number]

    return SimpleNamespace(ported=Ported())


def told(scales, skips=FLOWN):
    settings = meta(hysteresis=2, loss_scale_window=3)
    port = port_of(scales, skips, settings)
    rules = LossScaleRules(settings)
    failed = [
        m
        for number in range(len(scales))
        for m in rules.judge(number, port.ported.raw(number))
        if m.z
    ]
    with of_a_port():
        return [one.label for one in loss_scale.explain(port, failed)]


RIGHT = [16, 16, 16, 16, 16, 16, 16, 32]


@pytest.mark.parametrize(
    ("scales", "names"),
    [
        (RIGHT, []),
        ([16] * 8, ["scale_is_static"]),
        ([16, 16, 16, 8, 8, 8, 8, 16], ["no_hysteresis"]),
        ([16, 16, 16, 16, 16, 16, 32, 32], ["scale_grows_early"]),
        ([16, 16, 16, 4, 4, 4, 4, 8], []),
        ([16, 16, 16, 16, 32, 32, 32, 32], []),
        ([8, 8, 8, 8, 8, 8, 8, 16], []),
    ],
)
def test_rules_by_which_all_scales_move(scales, names):
    assert told(scales) == names


@pytest.mark.parametrize(
    ("scale", "bound", "name"),
    [
        (1024, 0.5 / 1024, "clip_before_unscale"),
        (1024, 0.5 / 1000, "clip_norm"),
        (1, 0.4, "clip_norm"),
    ],
)
def test_a_bound_for_scaled_gradients(scale, bound, name):
    port = port_of([scale], [False], meta())
    difference = Difference("clip norm", "", (), bound, 0.5)
    assert optimizer.known_name(port, difference) == name

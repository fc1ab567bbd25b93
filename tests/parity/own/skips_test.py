"""A recording whose steps were all skipped: what the loss scale does, and for how long.

The recording is one in float32, rewritten to what overflows in FP16 would have left.
"""

import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from parity.own import skips
from parity.own.environment import of_a_port
from tests.parity.own.small_net import port_of, record, rewritten

POWER = 24
"""Of a loss scale under which the gradients of the network overflow."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return record(tmp_path_factory.mktemp("skips") / "t", steps=3)


def refusal(trace, folder, scales, **config):
    """Returns the line that refuses a recording with these loss scales."""
    first = Reader(trace).read(0)

    def skipped(number, step):
        kept = {
            f"{kind}/{name}": array
            for before, after in (("params", "updated"), ("moments", "updated_moments"))
            for kind in (before, after)
            for name, array in select(first, before).items()
        }
        return (
            step
            | kept
            | {
                "loss_scale": np.float32(scales[number]),
                "skipped": np.bool_(True),
                "optimizer_step": np.int32(0),
            }
        )

    meta = {"precision": "fp16", "zero_stage": 1 if config else None}
    meta["config"] = {"fp16": {"enabled": True, **config}} if config else None
    with of_a_port():
        port = port_of(rewritten(trace, folder / "t", skipped, **meta))
        with pytest.raises(UserError) as caught:
            skips.refuse_skipped(port)
    text = str(caught.value)
    assert text.startswith("cannot judge: each of 3 steps was skipped by an overflow")
    return text


def test_a_scale_that_falls(trace, tmp_path):
    scales = 2.0 ** np.array([POWER, POWER, POWER - 1])
    text = refusal(trace, tmp_path, scales, initial_scale_power=POWER)
    assert "the loss scale falls and has come to 8.38861e+06" in text
    assert "more overflows: record more steps" in text


def test_how_many_more_it_takes(trace, tmp_path):
    """Without hysteresis each overflow halves it."""
    scales = 2.0 ** np.array([POWER, POWER - 1, POWER - 2])
    settings = {"initial_scale_power": POWER, "hysteresis": 1}
    text = refusal(trace, tmp_path, scales, **settings)
    finite = float(text.split("finite at ")[1].split(",")[0])
    # The last recorded step has halved the scale once more.
    more = round(np.log2(scales[-1] / finite)) - 1
    assert f"after {more} more overflows" in text


def test_a_static_scale(trace, tmp_path):
    scales = [2.0**POWER] * 3
    text = refusal(trace, tmp_path, scales, loss_scale=2.0**POWER)
    assert "the loss scale stays at 1.67772e+07: it never falls to" in text


def test_a_scaler_that_nobody_knows(trace, tmp_path):
    assert "it never falls" in refusal(trace, tmp_path, [2.0**POWER] * 3)

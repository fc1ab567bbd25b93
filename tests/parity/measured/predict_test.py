"""A fitted formula applied to the recorded steps gives what was recorded."""

import numpy as np
import pytest

from parity.measured.fit import measure
from parity.measured.predict import predict
from tests.parity.known_faults import on_avx2
from tests.parity.measured import programs
from tests.parity.measured.compare_test import CLEAN
from tests.parity.measured.programs import record


def distances(recording, fits):
    """Distance of predicted from recorded numbers, in ulps of the largest entry."""
    for before, step in zip([None, *recording], recording):
        for name, fit in fits.items():
            if step.count not in fit.counts:
                continue
            made = predict(fit, step, before)
            yield distance(made.updated, step.updated[name])
            for kind, array in made.moments.items():
                yield distance(array, step.updated_moments[f"{kind}/{name}"])


def distance(a, b):
    assert a.shape == b.shape
    size = max(float(np.abs(b).max()), 1e-30)
    return float(np.abs(a - b).max()) / np.spacing(np.float32(size))


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("hook", ["plain", "clipped", "late"])
def test_is_the_recorded_step(name, hook, request):
    if (name, hook) == ("rmsprop momentum", "late"):
        request.applymarker(on_avx2("74 ulps of 32"))
    hooks = {
        "plain": programs.nothing,
        "clipped": programs.clipped,
        "late": programs.Late(),
    }
    recording = record(CLEAN[name], hooks[hook], steps=6)
    fits = measure(recording)
    known = {name: fit for name, fit in fits.items() if fit.is_recognised}
    assert "0.weight" in known
    assert max(distances(recording, known)) < 32


def test_an_unrecognised_tensor_has_none():
    recording = record(CLEAN["adam"])
    fit = measure(recording)["0.weight"]._replace(family="unrecognised")
    with pytest.raises(ValueError, match="no formula"):
        predict(fit, recording[0])


def test_other_steps_have_none():
    recording = record(CLEAN["adam"])
    fit = measure(recording[:4])["0.weight"]
    with pytest.raises(ValueError, match="step 5"):
        predict(fit, recording[5])


def test_rebuilt_moments_have_none():
    recording = programs.without_moments(record(CLEAN["momentum"]))
    fit = measure(recording)["0.weight"]
    with pytest.raises(ValueError, match="were not recorded"):
        predict(fit, recording[1])

"""Every lab at reduced size: its claims hold, and its page needs nothing else."""

import re

import numpy as np
import pytest

from parity.labs import __main__ as labs
from parity.labs.subjects import LABS, gradients, optimizers, surface


@pytest.mark.parametrize("name", LABS)
def test_claims_hold_at_reduced_size(tmp_path, name):
    outcome = labs.run(name, tmp_path, is_reduced=True)
    assert outcome.claims
    assert [f"{c.text}: {c.figures}" for c in outcome.claims if not c.is_met] == []
    page = outcome.page.read_text()
    assert 'src="data:image/svg+xml' in page
    assert "<table" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []


def test_epochs_to_a_loss_are_the_median_of_first_times():
    losses = np.array([[1.0, 0.5, 0.1], [1.0, 0.05, 0.2], [1.0, 1.0, 1.0]])
    assert optimizers.epochs_to(losses, 0.4) == 3
    assert optimizers.epochs_to(losses, 0.01) == np.inf


def test_arrival_is_where_a_path_stays_at_the_bottom():
    bowl = surface.SURFACES["ravine"]
    points = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert surface.steps_to(bowl, points) == 3
    assert surface.steps_to(bowl, points[:3]) == np.inf


def test_deepest_points_are_minima():
    for each in surface.SURFACES.values():
        around = np.array(each.deepest) + 1e-3 * np.array(
            [[1, 0], [-1, 0], [0, 1], [0, -1]]
        )
        assert (surface.heights(each, around) > 0).all()


def test_norms_at_the_start_are_one_a_hidden_layer(tmp_path):
    bench = labs.Bench(("--flagfile=launch/labs/gradients.flags",), tmp_path)
    data = bench.data()
    (deep, *_) = bench.members("--grid=hidden_sizes=6,6,6", "--activation=tanh")
    found = gradients.start(deep.experiment, data)
    assert found.norms.shape == (3,)
    assert found.ratio == found.norms[0] / found.norms[-1]
    assert found.key == ("plain", "tanh", "glorot_normal", 3)

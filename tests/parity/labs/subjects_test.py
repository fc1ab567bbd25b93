"""Every lab at reduced size: its claims hold, and its page needs nothing else."""

import re

import numpy as np
import pytest

from jaxnn.experiment.results.plots.animation import Frame
from parity.labs import __main__ as labs
from parity.labs.subjects import (
    LABS,
    gradients,
    half,
    optimizers,
    perceptron,
    side_by_side,
    surface,
    vectors,
)


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


def test_a_line_has_moved_by_the_norm_over_both_parameters():
    start = {"output/kernel": np.array([[1.0]]), "output/bias": np.array([1.0])}
    end = {"output/kernel": np.array([[4.0]]), "output/bias": np.array([5.0])}
    assert half.moved(end, start) == 5.0


def test_ulps_are_those_of_the_largest_entry():
    a = np.array([1e-9, 4.0])
    assert side_by_side.ulps(a, a + np.array([0, 3 * np.spacing(4.0)])) == 3
    assert side_by_side.ulps(a, a) == 0


def test_three_libraries_have_the_same_operations():
    for path in side_by_side.FILES.values():
        bodies = side_by_side.bodies_of(path.read_text())
        assert bodies.keys() >= side_by_side.CALLS.keys()
        assert all('"""' not in body for body in bodies.values())


def test_body_of_a_function_has_no_docstring_and_no_indent():
    source = 'def f(x):\n    """Text."""\n    if x:\n        return 1\n    return x\n'
    assert side_by_side.bodies_of(source) == {"f": "if x:\n    return 1\nreturn x"}


def test_rosenblatt_by_hand():
    """step(0) = 1 is wrong for the first sample, which moves the line past the second;
    that moves it back, and then both are right."""
    inputs = np.array([[1.0, 0.0], [0.0, -2.0]], np.float32)
    order = np.array([[0, 1], [1, 0], [0, 1]])
    found = perceptron.rosenblatt(inputs, np.array([0, 1]), order)
    assert found.errors == [2, 0, 0]
    assert found.kernel.tolist() == [-1.0, -2.0]
    assert found.bias == 0.0


def test_an_error_is_an_update_that_moved_something():
    kernel, no_ids = np.zeros((2, 1)), np.array([], int)
    biases = [0.0, 1.0, 1.0, 1.0, 2.0]
    frames = [
        Frame(n, {"kernel": kernel, "bias": np.array([bias])}, no_ids)
        for n, bias in enumerate(biases)
    ]
    assert perceptron.errors_of(frames, epochs=2) == [1, 1]


def test_a_step_of_logistic_regression_three_ways():
    draw = np.random.default_rng(0).standard_normal
    w, x, t = draw(3), draw((5, 3)), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    loop = vectors.step_loop(w.tolist(), x.tolist(), t.tolist())
    np.testing.assert_allclose(vectors.step_vector(w, x, t), loop, rtol=1e-14)
    single = (each.astype(np.float32) for each in (w, x, t))
    np.testing.assert_allclose(vectors.step_compiled(*single), loop, rtol=1e-6)

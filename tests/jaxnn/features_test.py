"""Tests of jaxnn/features.py."""

import numpy as np
import pytest

from jaxnn import features, train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags.config import Experiment

CNN = Experiment(
    name="cnn",
    dataset="digits",
    model="cnn",
    channels=(4, 6),
    hidden_sizes=(8,),
    loss="cross_entropy",
    preprocess="standardize",
    batch_size=64,
    epochs=1,
    plots=False,
    precision="fp32",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train.main(CNN.replace(workdir=str(folder / "cnn")))
    return str(folder / "cnn")


def test_what_a_network_saw_is_what_its_layers_put_out(run):
    seen = features.look(run)
    layers = list(seen.outputs)
    assert layers[-1] == "output"
    params = artifacts.read_arrays(f"{run}/{artifacts.PARAMS}", "RUN")
    first = params[f"{layers[0]}/kernel"]
    np.testing.assert_array_equal(seen.kernels[2, ..., 0], first[..., 0, 2])
    assert seen.images.shape == (360, 8, 8, 1)
    assert (seen.images.min(), seen.images.max()) == (0, 1)
    assert seen.outputs[layers[0]].shape[0] == len(seen.images)


def test_draws_each_layer(run):
    figure = features.draw(run)
    titles = [each.get_suptitle() for each in parts_of(figure)]
    assert "Weights of the first layer, a unit each" in titles
    assert "One test image, and what each layer makes of it" in titles
    assert "output: images that excite a unit most" in titles
    figure.canvas.draw()


def parts_of(figure):
    for part in figure.subfigs:
        yield part
        yield from parts_of(part)


def test_the_most_exciting_come_first():
    outputs = np.zeros((4, 2, 2, 3))
    outputs[:, 0, 1, 2] = [5, 7, -1, 6]
    assert list(features.most_exciting(outputs, 2, 3)) == [1, 3, 0]
    # Equal ones in the order of their samples.
    assert list(features.most_exciting(outputs, 0, 2)) == [0, 1]


def test_kernels_of_a_dense_layer_are_images():
    kernel = np.arange(32.0).reshape(16, 2)
    params = {"hidden_0/kernel": kernel, "hidden_0/bias": np.zeros(2)}
    images = features.first_kernels(params, ["hidden_0"], (4, 4, 1))
    np.testing.assert_array_equal(images[1, ..., 0], kernel[:, 1].reshape(4, 4))
    with pytest.raises(UserError, match="no weights over pixels"):
        features.first_kernels(params, ["hidden_0"], (4, 5, 1))


@pytest.mark.parametrize(("dataset", "is_image"), [("digits", True), ("wine", False)])
def test_a_square_of_features_is_an_image(dataset, is_image):
    data = load_dataset(
        Experiment(dataset=dataset, loss="cross_entropy", batch_size=8, model="mlp")
    )
    if is_image:
        assert features.image_shape(data) == (8, 8, 1)
        return
    with pytest.raises(UserError, match=r"no images \(shape \[13\]\)"):
        features.image_shape(data)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (6, [0, 1, 2, 3, 4, 5]), (11, [0, 2, 4, 6, 8, 10])],
)
def test_deep_networks_are_thinned(count, expected):
    assert features.thinned([str(k) for k in range(count)]) == list(map(str, expected))

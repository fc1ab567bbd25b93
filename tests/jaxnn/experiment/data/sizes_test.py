"""Tests of jaxnn/experiment/data/sizes.py."""

import jax
import pytest

from jaxnn import models, train_step
from jaxnn.experiment.data import sizes
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten
from jaxnn.experiment.flags.config import Experiment

HUGE = 2**31 - 1
ROWS = Signature((30,), 2)
STEPS = Signature((12, 3), 2)
IMAGES = Signature((8, 8, 1), 10)
TEXT = Signature((12,), 50, num_tokens=50, per_step=True)
NETWORKS = {
    "mlp": (Experiment(model="mlp", hidden_sizes=(64, 32)), ROWS),
    "lstm": (Experiment(model="lstm", hidden_sizes=(16, 8)), STEPS),
    "cnn": (Experiment(model="cnn", channels=(8, 4), hidden_sizes=(16,)), IMAGES),
    "transformer": (Experiment(model="transformer", width=16, num_heads=2), TEXT),
    "encoder": (Experiment(model="transformer_encoder", width=16), STEPS),
    "linear": (Experiment(), ROWS),
    "resnet": (Experiment(model="resnet"), IMAGES),
}


class TestCheckSamples:
    @pytest.mark.parametrize("dataset", sizes.GENERATED)
    def test_refuses_more_than_memory_holds(self, dataset):
        with pytest.raises(UserError, match=r"^--num_samples: 2147483647 samples take"):
            sizes.check_samples(Experiment(dataset=dataset, num_samples=HUGE))

    def test_of_a_file_there_are_as_many_as_there_are(self):
        sizes.check_samples(Experiment(dataset="csv", num_samples=HUGE))


class TestCheckNetwork:
    @pytest.mark.parametrize(("experiment", "signature"), NETWORKS.values())
    def test_takes_the_usual(self, experiment, signature):
        sizes.check_network(experiment, signature)

    @pytest.mark.parametrize(
        ("name", "flag", "size"),
        [
            ("mlp", "hidden_sizes", (HUGE,)),
            ("lstm", "hidden_sizes", (HUGE,)),
            ("cnn", "channels", (HUGE,)),
            ("cnn", "hidden_sizes", (HUGE, HUGE)),
            ("transformer", "width", HUGE),
            ("transformer", "mlp_width", HUGE),
            ("encoder", "width", HUGE),
        ],
    )
    def test_refuses_the_enormous(self, name, flag, size):
        experiment, signature = NETWORKS[name]
        with pytest.raises(
            UserError, match=rf"^--[-\w, ]*{flag}[-\w, ]*: \S+ \w+ take"
        ):
            sizes.check_network(experiment.replace(**{flag: size}), signature)

    def test_refuses_a_kernel_wider_than_the_image(self):
        experiment, signature = NETWORKS["cnn"]
        with pytest.raises(UserError, match=r"^--kernel_size: 9 is wider .* 8 x 8"):
            sizes.check_network(experiment.replace(kernel_size=9), signature)


class TestParameters:
    @pytest.mark.parametrize(
        ("experiment", "signature"), NETWORKS.values(), ids=NETWORKS.keys()
    )
    def test_is_never_more_than_there_are(self, experiment, signature):
        model = models.build(experiment, signature)
        made = jax.eval_shape(lambda: train_step.initial_variables(model, 0, signature))
        count = sum(leaf.size for leaf in flatten(made["params"]).values())
        assert 0 < sizes.parameters(experiment, signature) <= count

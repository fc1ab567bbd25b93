"""flax's half of a network of one's own."""

import jax
import numpy as np
import pytest

from jaxnn import models, train_step
from jaxnn.dropout import mask_source
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import flatten
from tests import own_nets

IMAGES = Signature((4, 4, 2), 3)
NET = """
import flax.linen as nn
import torch
class Net(nn.Module):
    num_outputs: int
"""


class TestBuild:
    def test_adds_nothing_to_the_names(self, tmp_path):
        model = models.build(own_nets.experiment(tmp_path, own_nets.PAIR), IMAGES)
        variables = train_step.initial_variables(model, 0, IMAGES)
        assert flatten(variables["params"]).keys() == {
            "conv/kernel",
            "conv/bias",
            "gain",
            "norm/scale",
            "norm/bias",
            "head/kernel",
            "head/bias",
        }

    def test_dropout_follows_the_step_and_ends_with_training(self, tmp_path):
        model = models.build(own_nets.experiment(tmp_path, own_nets.PAIR), IMAGES)
        params = train_step.initial_variables(model, 0, IMAGES)["params"]
        inputs = np.ones((6, *IMAGES.input_shape), np.float32)

        @jax.jit
        def run(step):
            return model.apply({"params": params}, inputs, mask_source(0, step, 0))

        first, second, again = run(0), run(1), run(0)
        assert np.array_equal(first, again)
        assert not np.array_equal(first, second)
        still = model.apply({"params": params}, inputs)
        assert np.allclose(still, still[:1])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("class Net: pass", "Net is no flax.linen.Module"),
            (
                f"{NET}    def __call__(self, x): return x",
                r"Net of .*net.py returns \(1, 4, 4, 2\) for inputs \(1, 4, 4, 2\), "
                r"the task needs \(1, 3\)$",
            ),
            (
                f"{NET}    def __call__(self, x): return x @ x[:, :3]",
                r"net.py, line 6: ValueError: ",
            ),
        ],
    )
    def test_refuses_what_is_no_network_of_the_data(self, tmp_path, text, message):
        with pytest.raises(UserError, match=message) as caught:
            models.build(own_nets.experiment(tmp_path, text), IMAGES)
        assert "\n" not in str(caught.value)

"""Tests of torch_ref/freezing.py."""

import pytest

from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from torch_ref import freezing, models, train

MLP = Experiment(model="mlp", hidden_sizes=(5,))


def model_of(experiment):
    return models.build(experiment, Signature((4,), 2))


def test_what_flaxs_name_says_leaves_autograd():
    model = model_of(MLP)
    freezing.freeze(MLP.replace(freeze="hidden_0/kernel"), model)
    frozen = {n for n, param in model.named_parameters() if not param.requires_grad}
    assert frozen == {"hidden_0.weight"}
    assert len(freezing.trained(model)) == 3


def test_all_or_none_is_refused():
    with pytest.raises(UserError, match=r"^--freeze: 'weight' is found in no p"):
        freezing.freeze(MLP.replace(freeze="weight"), model_of(MLP))


@pytest.mark.parametrize("flags", [dict(checkpoint_every=1), dict(resume=True)])
def test_a_run_that_is_to_be_resumed_is_refused(flags):
    frozen = MLP.replace(precision="fp32", freeze="bias")
    train.require_supported(frozen)
    with pytest.raises(UserError, match=r"^--freeze: torch_ref.train cannot resume "):
        train.require_supported(frozen.replace(**flags))

"""Which names `--freeze` chooses, and what it refuses."""

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.freezing import check, is_trained

NAMES = ("conv_0/bias", "conv_0/kernel", "output/bias", "output/kernel")


def trained(pattern):
    experiment = Experiment(freeze=pattern)
    check(experiment, NAMES)
    return {name for name in NAMES if is_trained(experiment, name)}


def test_the_expression_is_searched_in_the_whole_name():
    assert trained("") == set(NAMES)
    assert trained("conv") == {"output/bias", "output/kernel"}
    assert trained("bias$") == {"conv_0/kernel", "output/kernel"}
    assert trained("^conv_0/kernel$|output") == {"conv_0/bias"}


@pytest.mark.parametrize(
    ("pattern", "found"), [("dense", "no parameter"), (".", "all parameters")]
)
def test_all_or_none_is_refused_with_the_names(pattern, found):
    with pytest.raises(UserError) as refused:
        check(Experiment(freeze=pattern), NAMES)
    assert str(refused.value) == (
        f"--freeze: {pattern!r} is found in {found} of --model=linear; they are "
        "conv_0/bias, conv_0/kernel, output/bias, output/kernel"
    )

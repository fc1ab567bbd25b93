"""Tests of parity/judging/replays.py."""

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags.config import Experiment
from parity.judging.replays import Replays
from parity.semantics import SWITCHES


def test_switches_that_change_no_program_share_the_plain_one():
    experiment = Experiment(precision="fp16")
    replays = Replays(experiment, load_dataset(experiment))
    plain = replays.under(())
    inputs_alone, traced = SWITCHES["loss_not_scaled"], SWITCHES["computed_in_bf16"]
    assert replays.under((inputs_alone,)) is plain
    assert replays.under((traced,)) is not plain
    assert replays.under((inputs_alone, traced)) is replays.under((traced,))

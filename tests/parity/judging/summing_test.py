"""What DeepSpeed's sum over microbatches costs is said, and nothing else is."""

import re

import pytest

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line
from parity.judging.replays import Replays
from parity.judging.step import Judge
from parity.judging.summing import lost_by_summing
from parity.mutations.score import Enacted
from parity.semantics import SWITCHES

PARTS = 512
FLAGS = (
    "--dataset=approximation",
    f"--num_samples={PARTS}",
    "--model=mlp",
    "--hidden_sizes=4",
    "--loss=mse",
    f"--batch_size={PARTS}",
    "--precision=bf16",
    "--noplots",
    "--record=full",
    "--record_steps=1",
    "--max_steps=1",
)


def recorded(folder, parts):
    arguments = ["", *FLAGS, f"--accumulation_steps={parts}", f"--workdir={folder}"]
    experiment, _ = command_line.parse(arguments, "bf16")
    train.main(experiment)
    replays = Replays(experiment, load_dataset(experiment))
    return replays, Reader(folder / "trace")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("many") / "run", PARTS)


def enacted(replays, trace, name):
    judge = Judge(replays, trace, None, 8.0)
    return Enacted(trace, 0, judge.enacted(0, (SWITCHES[name],)))


def test_says_what_is_lost(many):
    text = lost_by_summing(many[0], enacted(*many, "accumulated_in_half"), [0])
    assert text.startswith(f"{PARTS} microbatches are added in bf16: gradients ")
    off, right = (float(share) for share in re.findall(r"([0-9.]+)%", text))
    assert off > 1 > right


def test_says_nothing_of_a_sum_in_float32(many):
    assert not lost_by_summing(*many, [0])


def test_says_nothing_of_another_difference(many):
    assert not lost_by_summing(many[0], enacted(*many, "loss_summed"), [0])


def test_says_nothing_of_a_few(tmp_path):
    assert not lost_by_summing(*recorded(tmp_path / "run", 8), [0])

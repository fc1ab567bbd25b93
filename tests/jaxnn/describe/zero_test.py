"""Bytes a rank by ZeRO stage against the paper's figures and counts by hand."""

import pytest
from rich.console import Console

from jaxnn.describe import abstract_step, zero
from jaxnn.describe.zero import ModelStates
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment

PARAMS = (3 + 1) * 4 + (4 + 1) * 2


def step(**changes):
    settings = {"precision": "fp16", "optimizer": "adam", "batch_size": 8} | changes
    experiment = Experiment(model="mlp", hidden_sizes=(4,), **settings)
    return abstract_step.build(experiment, Signature((3,), 2))


@pytest.mark.parametrize(
    ("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)]
)
def test_figures_of_the_paper(stage, gigabytes):
    """Its figure 1: 7.5 billion parameters, 64 ranks, FP16, Adam."""
    whole = ModelStates(*(factor * 7_500_000_000 for factor in (2, 2, 12)))
    assert round(zero.on_a_rank(whole, stage, 64).total / 1e9, 1) == gigabytes


@pytest.mark.parametrize(
    ("precision", "optimizer", "a_parameter"),
    [
        ("fp16", "adam", (2, 2, 12)),
        ("bf16", "momentum", (2, 2, 8)),
        ("fp32", "adam", (4, 4, 8)),
        ("fp32", "sgd", (4, 4, 0)),
    ],
)
def test_undivided_by_hand(precision, optimizer, a_parameter):
    found = zero.undivided(step(precision=precision, optimizer=optimizer))
    assert found == tuple(factor * PARAMS for factor in a_parameter)


def test_what_does_not_divide_is_rounded_up():
    assert zero.on_a_rank(ModelStates(7, 7, 7), 2, 4) == (7, 2, 2)


def test_one_rank_divides_nothing():
    whole = ModelStates(5, 6, 7)
    assert {zero.on_a_rank(whole, stage, 1) for stage in zero.STAGES} == {whole}


def test_table_marks_the_chosen_stage():
    console = Console(width=100, record=True)
    zero.print_stages(step(num_devices=2, zero_stage=3), console)
    lines = [line.split() for line in console.export_text().splitlines()]
    row = next(line for line in lines if line[:1] == ["3"])
    each = 16 * PARAMS // 2
    assert row[1:3] == ["<-", "--zero_stage"]
    assert row[-3:] == [str(each), "B", "50.0%"]
    assert sum("--zero_stage" in line for line in lines) == 1

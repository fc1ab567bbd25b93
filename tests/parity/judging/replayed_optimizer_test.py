"""What parity.run measures of a recorded optimizer, beside that of the flags."""

import pytest

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line
from parity.judging.measure import THRESHOLD
from parity.judging.replayed_optimizer import beside_the_replay
from parity.judging.replays import Replays
from parity.judging.rounds import ULPS_FIRST
from parity.judging.step import Judge
from parity.quantities import UPDATE

STEPS = 5
FAR = 20.0
"""z that needs no closer look."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(Experiment, data, trace) of AdamW in float32."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    experiment, _ = command_line.parse(
        [
            "",
            "--flagfile=launch/experiments/breast_cancer.flags",
            "--precision=fp32",
            "--optimizer=adamw",
            "--weight_decay=0.01",
            "--noplots",
            "--record=full",
            f"--record_steps={STEPS}",
            f"--max_steps={STEPS}",
            f"--workdir={workdir}",
        ],
        "fp32",
    )
    train.main(experiment)
    return experiment, load_dataset(experiment), Reader(workdir / "trace")


def found(recorded, **changes):
    """What is found if the flags say something else than was recorded."""
    experiment, data, trace = recorded
    replays = Replays(experiment.replace(**changes), data)
    judge = Judge(replays, trace, None, THRESHOLD, ULPS_FIRST)
    wrong = [
        m
        for n in range(STEPS)
        for m in judge.part(UPDATE, n, (), FAR)
        if m.z > THRESHOLD
    ]
    return beside_the_replay(replays, trace, wrong)


CASES = (
    ({"adam_b1": 0.8}, "first moment decays by 0.9, under your optimizer by 0.8"),
    ({"adam_b2": 0.99}, "second moment decays by 0.999, under your optimizer by 0.99"),
    ({"adam_eps": 1e-6}, "eps is 1e-08, yours 1e-06"),
    (
        {"weight_decay": 0.03},
        "decay is 0.01, decoupled, your optimizer's 0.03, decoupled",
    ),
    (
        {"optimizer": "adam", "weight_decay": 0.0},
        "decoupled decay is 0.01, your optimizer's below",
    ),
)


class TestBesideTheReplay:
    @pytest.mark.parametrize(("changes", "sentence"), CASES)
    def test_a_figure_of_both_sides(self, recorded, changes, sentence):
        differences = found(recorded, **changes).differences
        assert len(differences) == 1
        assert differences[0].sentence.startswith(sentence)

    def test_nothing_is_measured_where_no_update_fails(self, recorded):
        assert found(recorded) is None

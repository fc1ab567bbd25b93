"""Tests of torch_ref/faults: what each fault moves, and from which step on, in real
runs.

Each is compared bit by bit with the run of its experiment without a fault.
"""

import json

import numpy as np
import pytest

from jaxnn.experiment.flags import command_line
from parity.semantics import SWITCHES
from tests.torch_ref.faults.cases import CASES, EXPERIMENTS, STEPS, Case, jobs_of
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import EVENT, START, STEP

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def moved(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> set[str]:
    """The kinds of tensors that differ in a bit; NaN is itself."""
    assert ours.keys() == theirs.keys()
    return {
        name.split("/")[0]
        for name, array in ours.items()
        if not np.array_equal(array, theirs[name], True)
    }


class TestEveryFault:
    def test_all_end_well(self, folder):
        codes = json.loads((folder / "jobs.done.json").read_text())
        assert codes == [0] * len(jobs_of(folder)), (folder / "log").read_text()

    @every_case
    def test_moves_the_trace_from_its_step_on(self, steps, case):
        """Neither earlier nor in tensors that it has nothing to do with; then the run
        stays another."""
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        assert len(plain) == len(planted) == STEPS
        differences = [moved(*pair) for pair in zip(plain, planted)]
        assert differences[: case.first + 1] == [set()] * case.first + [case.kinds]
        assert all(differences[case.first :])

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_is_undone_afterwards(self, steps, experiment):
        clean = Case("", experiment)
        assert not any(
            moved(*pair)
            for pair in zip(steps(f"before-{clean}"), steps(f"after-{clean}"))
        )

    def test_all_are_tested(self):
        assert {case.fault for case in CASES} == set(FAULTS) - {"ranks_summed"}

    def test_each_is_undone_by_a_switch(self):
        """Of parity's catalogue; those that a flag says in full, or that DeepSpeed has
        by itself, are not planted."""
        by_code = {
            name
            for name, switch in SWITCHES.items()
            if not switch.experiment or switch.patches
        }
        assert set(FAULTS) - by_code == {"clip_before_unscale", "computed_in_bf16"}
        assert by_code - set(FAULTS) == {
            "loss_not_scaled",
            "init_step_counted",
            "growth_step_halved",
            "accumulated_in_half",
        }

    @pytest.mark.parametrize("name", sorted(set(FAULTS) - {"ranks_summed"}))
    def test_applies_where_its_switch_does(self, name):
        """But that torch's recurrent kernels know no other format."""
        for case in {case.clean for case in CASES}:
            experiment = command_line.parse(["", *case.flag_values], "fp32")[0]
            out_of_reach = name == "computed_in_bf16" and case.experiment == "lstm"
            assert FAULTS[name].applies(experiment) == (
                SWITCHES[name].applies(experiment) and not out_of_reach
            ), case

    def test_say_when_they_begin(self):
        begins = {
            kind: {name for name, fault in FAULTS.items() if fault.begins == kind}
            for kind in (START, STEP, EVENT)
        }
        assert begins[START] == {
            "masters_not_rounded",
            "not_shuffled",
            "same_order_every_epoch",
        }
        assert begins[EVENT] == {"weights_reloaded", "moments_reset"}
        assert len(begins[STEP]) == len(FAULTS) - 5

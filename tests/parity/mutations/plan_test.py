"""Tests of parity/mutations/plan.py."""

import pytest

from jaxnn.experiment.flags import command_line, consistency
from parity.mutations import plan
from parity.mutations.bases import BASES, ONLY, ONLY_PRECISIONS, PRECISIONS
from parity.semantics import SWITCHES
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import EVENT, START


def mutants(base, precision):
    experiment, _ = command_line.parse(
        ["", *BASES[base], f"--precision={precision}"], precision
    )
    return list(plan.mutants(experiment))


class TestMutants:
    def test_every_switch_is_planted_somewhere(self):
        planted = {
            name
            for base in BASES
            for precision in ONLY_PRECISIONS.get(base, PRECISIONS)
            for mutant in mutants(base, precision)
            if set(mutant.switches) & set(ONLY.get(base, SWITCHES))
            for name in mutant.switches
        }
        # "ranks_summed" needs several ranks.
        assert planted == SWITCHES.keys() - {"ranks_summed"}

    @pytest.mark.parametrize("base", BASES)
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_what_code_plants_the_torch_side_knows_and_can(self, base, precision):
        for mutant in mutants(base, precision):
            if mutant.fault:
                assert FAULTS[mutant.fault].applies(mutant.experiment)
                assert (FAULTS[mutant.fault].begins == START) == (
                    mutant.first_step == 0
                )
                assert (FAULTS[mutant.fault].begins == EVENT) == (
                    len(mutant.steps) == 1
                )

    @pytest.mark.parametrize("base", BASES)
    def test_what_flags_plant_are_other_flags_that_hold_together(self, base):
        experiment, _ = command_line.parse(
            ["", *BASES[base], "--precision=fp32"], "fp32"
        )
        for mutant in plan.mutants(experiment):
            if not mutant.fault:
                assert mutant.experiment != experiment
                consistency.check(mutant.experiment)

    def test_only_names_what_is_there(self):
        assert ONLY.keys() <= BASES.keys()
        assert ONLY_PRECISIONS.keys() <= BASES.keys()
        assert {name for names in ONLY.values() for name in names} <= SWITCHES.keys()

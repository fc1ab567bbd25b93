"""The diagnosis on made-up measurements: what it tries, what it calls an explanation,
in which order."""

import math

import pytest

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from parity.judging import diagnose
from parity.judging.explanation import sentence
from parity.judging.measure import UNEQUAL, Measurement
from parity.quantities import GRADIENTS, RULES, UPDATE
from parity.semantics.switch import Switch

THRESHOLD = 8.0


def switch(name, *parts, applies=True, place=None):
    patches = (Patch(place, "x", lambda plain: plain),) if place is not None else ()
    return Switch(
        name,
        parts,
        f"{name} is so",
        f"paper on {name}",
        lambda experiment: applies,
        patches=patches,
    )


def catalogue(*switches):
    return {switch.name: switch for switch in switches}


class Step:
    """A step whose z of each quantity depends on the switches that are on; remembers
    what was asked."""

    def __init__(self, **z):
        self.z, self.asked = z, []

    def __call__(self, part, step, switches):
        names = tuple(switch.name for switch in switches)
        self.asked.append((part, step, names))
        quantities = {
            RULES: ("learning_rate",),
            GRADIENTS: ("grads",),
            UPDATE: ("updated",),
        }[part]
        return [
            Measurement(step, quantity, "w", *self._z(quantity, names, step))
            for quantity in quantities
        ]

    def _z(self, quantity, names, step):
        found = self.z.get(quantity, lambda names, step: 1.0)(names, step)
        return found if isinstance(found, tuple) else (found, 1e-3)


def run(step, *switches, steps=(4,), first=None):
    known = catalogue(*switches)
    return diagnose.diagnose(step, steps, Experiment(), THRESHOLD, known, first=first)


class TestDiagnose:
    def test_names_the_switch_under_which_everything_passes(self):
        step = Step(grads=lambda names, number: 1.0 if "right" in names else 500.0)
        (found,) = run(step, switch("wrong", GRADIENTS), switch("right", GRADIENTS))
        assert found.names == ("right",)
        assert (found.before, found.after, found.explains) == (500.0, 1.0, True)

    def test_tries_only_what_applies_and_acts_on_what_failed(self):
        step = Step(grads=lambda names, number: 500.0)
        run(
            step,
            switch("update", UPDATE),
            switch("not_here", GRADIENTS, applies=False),
            switch("tried", GRADIENTS),
        )
        assert {names for _, _, names in step.asked} == {(), ("tried",)}

    def test_a_part_without_a_switch_is_measured_once(self):
        step = Step(grads=lambda names, number: 500.0)
        run(step, *(switch(str(number), GRADIENTS) for number in range(5)))
        assert sum(part == UPDATE for part, _, _ in step.asked) == 1

    def test_a_pair_explains_what_two_parts_need(self):
        step = Step(
            grads=lambda names, number: 1.0 if "a" in names else UNEQUAL,
            learning_rate=lambda names, number: 0.0 if "b" in names else UNEQUAL,
        )
        (found,) = run(
            step, switch("a", GRADIENTS), switch("b", RULES), switch("c", RULES)
        )
        assert found.names == ("a", "b")
        assert found.explains

    def test_a_pair_explains_what_one_part_needs(self):
        step = Step(
            updated=lambda names, number: {0: 900.0, 1: 300.0, 2: 2.0}[
                len({"a", "b"} & set(names))
            ]
        )
        (found,) = run(
            step, switch("a", UPDATE), switch("b", UPDATE), switch("c", UPDATE)
        )
        assert found.names == ("a", "b")

    def test_no_pair_patches_one_place_twice(self):
        place = {}
        step = Step(updated=lambda names, number: 900.0 / (1 + len(names)))
        run(step, switch("a", UPDATE, place=place), switch("b", UPDATE, place=place))
        assert ("update", 4, ("a", "b")) not in step.asked

    def test_the_sharper_of_two_explanations_comes_first(self):
        """Both pass; under one the noise is a thousand times larger, so that it would
        let almost anything pass."""
        step = Step(
            grads=lambda names, number: {
                (): 500.0,
                ("blunt",): (0.5, 1.0),
                ("sharp",): (1.5, 1e-3),
            }[names]
        )
        assert [
            found.names
            for found in run(
                step, switch("blunt", GRADIENTS), switch("sharp", GRADIENTS)
            )
        ] == [("sharp",), ("blunt",)]

    def test_later_steps_choose_between_equals(self):
        def z(names, number):
            found = {("right",): 1.0, ("lucky",): 1.0 if number == 4 else 7.0}
            return found.get(names, 500.0)

        found = run(
            Step(grads=z),
            switch("lucky", GRADIENTS),
            switch("right", GRADIENTS),
            steps=(4, 5),
        )
        assert [explanation.names for explanation in found] == [("right",), ("lucky",)]

    @pytest.mark.parametrize(("z", "first"), [(2.4, "known"), (2.7, "other")])
    def test_of_two_that_tie_the_catalogues_first_comes_first(self, z, first):
        """z^2 / 2 is 2.88 and 3.65; a likelihood ratio of 20 is 3.0."""
        costs = {("known",): z, ("other",): 0.0}
        step = Step(grads=lambda names, number: costs.get(names, 500.0))
        best, _ = run(step, switch("known", GRADIENTS), switch("other", GRADIENTS))
        assert best.names == (first,)

    def test_a_fault_that_comes_once_need_not_explain_what_follows(self):
        step = Step(
            grads=lambda names, number: (
                1.0 if (names == ("once",)) == (number == 4) else 500.0
            )
        )
        (found,) = run(
            step, switch("once", GRADIENTS), switch("other", GRADIENTS), steps=(4, 5)
        )
        assert found.names == ("once",)

    def test_what_fails_later_all_the_same_is_no_explanation(self):
        """A loss scale that halves late stands still at the step where it should have
        halved; that it never moves is refuted later."""
        step = Step(
            learning_rate=lambda names, number: (
                1.0 if names == ("static",) and number < 9 else UNEQUAL
            )
        )
        static = switch("static", RULES)
        assert run(step, static, steps=range(4, 10)) == []
        (found,) = run(step, static, steps=range(4, 9))
        assert found.names == ("static",)

    def test_what_fails_later_in_another_quantity_refutes_nothing(self):
        step = Step(
            grads=lambda names, number: 1.0 if names or number > 4 else 500.0,
            updated=lambda names, number: 500.0 if number > 4 else 1.0,
        )
        (found,) = run(step, switch("right", GRADIENTS), steps=(4, 5))
        assert found.names == ("right",)

    def test_what_nothing_explains_gets_the_nearest_three(self):
        step = Step(
            updated=lambda names, number: {
                "": 1000.0,
                "a": 100.0,
                "b": 10.0,
                "c": 2000.0,
                "d": 50.0,
            }.get("".join(names), 5000.0)
        )
        found = run(step, *(switch(name, UPDATE) for name in "abcd"))
        assert [explanation.names for explanation in found] == [("b",), ("d",), ("a",)]
        assert not any(explanation.explains for explanation in found)

    @pytest.mark.parametrize(("z", "is_near"), [(240.0, True), (260.0, False)])
    def test_what_leaves_the_first_tensor_far_off_is_not_near(self, z, is_near):
        step = Step(
            learning_rate=lambda names, number: z if "both" in names else 500.0,
            grads=lambda names, number: 20.0 if names else 900.0,
        )
        first = step(RULES, 4, ())[0]
        both, late = switch("both", RULES, GRADIENTS), switch("late", GRADIENTS)
        found = run(step, both, late, first=first)
        assert [one.names for one in found][:1] == [("both",)] * is_near
        assert ("late",) not in [one.names for one in found]

    def test_a_switch_that_breaks_another_part_does_not_explain(self):
        step = Step(
            grads=lambda names, number: 1.0 if names else 500.0,
            learning_rate=lambda names, number: UNEQUAL if names else 0.0,
        )
        assert not run(step, switch("both", GRADIENTS, RULES))

    def test_a_switch_that_fails_takes_nothing_with_it(self):
        def broken(names, number):
            if "broken" in names:
                raise ValueError("no use for it")
            return 1.0 if names else 500.0

        notes = []
        known = catalogue(switch("broken", UPDATE), switch("right", UPDATE))
        step = Step(updated=broken)
        found = diagnose.diagnose(
            step, (4,), Experiment(), THRESHOLD, known, notes.append
        )
        assert [one.names for one in found] == [("right",)]
        assert notes == ["broken could not be tried: no use for it"]

    def test_a_switch_that_changes_nothing_is_not_near(self):
        step = Step(grads=lambda names, number: 500.0)
        assert not run(step, switch("idle", GRADIENTS))

    def test_a_switch_that_only_makes_noise_is_neither_cause_nor_near(self):
        def coarse(names, number):
            return (1.0, 1.0) if names else (500.0, 1e-4)

        assert not run(Step(grads=coarse), switch("coarse", GRADIENTS))

    def test_what_is_not_a_number_costs_most(self):
        step = Step(
            updated=lambda names, number: math.nan if names == ("nan",) else 500.0
        )
        assert run(step, switch("nan", UPDATE), switch("plain", UPDATE))[-1].names != (
            "plain",
        )


class TestWords:
    def test_an_explanation(self):
        step = Step(learning_rate=lambda names, number: 0.0 if names else UNEQUAL)
        found = run(step, switch("late", RULES))
        assert (
            sentence(found)
            == "explained by late (z unequal -> 1.00): late is so [paper on late]"
        )
        assert [explanation.as_json() for explanation in found] == [
            {
                "name": "late",
                "explanation": "late is so",
                "reference": "paper on late",
                "before": "unequal",
                "after": 1.0,
                "explained": True,
            }
        ]

    def test_what_cannot_be_told_apart(self):
        def z(names, number):
            return {"worse": (7.0, 1e-3)}.get("".join(names), (1.0, 1e-3))

        step = Step(grads=lambda names, n: z(names, n) if names else (500.0, 1e-3))
        known = (switch(name, GRADIENTS) for name in ("a", "b", "worse"))
        said = sentence(run(step, *known))
        assert said.endswith(
            "; b would as well, and this recording cannot tell which; so would, less "
            "well, worse"
        )

    def test_no_explanation(self):
        step = Step(grads=lambda names, number: 50.0 if names else 500.0)
        found = run(step, switch("a", GRADIENTS))
        assert (
            sentence(found)
            == "no known difference explains it; nearest: a (5.0e+02 -> 50.00)"
        )
        assert sentence([]) == "no known difference explains it, or comes near"

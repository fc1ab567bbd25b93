"""The catalogue as a whole: what each entry must have, and that it leaves everything as
it was."""

import pathlib
import re

import pytest

from jaxnn.experiment.flags import command_line
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.schedules import learning_rates
from jaxnn.models import recurrence
from jaxnn.optimizers import OPTIMIZERS
from parity import semantics
from parity.mutations.bases import BASES
from parity.quantities import GRADIENTS, RULES, UPDATE
from parity.semantics import SWITCHES, layers, objective, optimizer, schedule
from parity.semantics.switch import (
    Switch,
    apply,
    changed_experiment,
    patched,
)

ENTRIES = [
    switch
    for module in (schedule, objective, layers, optimizer)
    for switch in module.SWITCHES
]
MANY_RANKS = {"ranks_summed"}


def experiments():
    return [
        command_line.parse(["", *flags, f"--precision={precision}"], precision)[0]
        for flags in BASES.values()
        for precision in ("fp16", "fp32", "bf16")
    ]


class TestEntries:
    def test_at_least_forty_each_under_a_name_of_its_own(self):
        assert len(SWITCHES) == len(ENTRIES) >= 40

    @pytest.mark.parametrize("switch", ENTRIES, ids=lambda switch: switch.name)
    def test_says_what_and_where_from_in_a_line(self, switch):
        for words in (switch.explanation, switch.reference):
            assert words
            assert "\n" not in words
        assert switch.parts
        assert set(switch.parts) <= {RULES, GRADIENTS, UPDATE}

    @pytest.mark.parametrize("switch", ENTRIES, ids=lambda switch: switch.name)
    def test_does_something_in_the_part_it_names(self, switch):
        acts = {
            RULES: (switch.expected, switch.experiment, switch.patches),
            GRADIENTS: (
                switch.before,
                switch.after,
                switch.params,
                switch.experiment,
                switch.patches,
            ),
            UPDATE: (switch.before, switch.update, switch.experiment, switch.patches),
        }
        for part in switch.parts:
            assert any(acts[part])

    def test_each_acts_on_one_base_of_the_score_at_least(self):
        bases = experiments()
        unused = {
            name
            for name, switch in SWITCHES.items()
            if not any(switch.applies(base) for base in bases)
        }
        assert unused == MANY_RANKS

    @pytest.mark.parametrize(
        "switch", [s for s in ENTRIES if s.experiment], ids=lambda switch: switch.name
    )
    def test_a_change_of_flags_is_one(self, switch):
        for base in filter(switch.applies, experiments()):
            assert switch.experiment(base) != base or switch.patches


WARMED = dict(schedule_steps=0, warmup_steps=3, min_learning_rate=1e-4)
SHAPES = (
    dict(schedule="cosine", min_learning_rate=1e-4),
    dict(schedule="warmup_lr", **WARMED),
    dict(schedule="warmup_decay_lr", **WARMED),
    dict(schedule="warmup_cosine_lr", **WARMED, final_learning_rate=1e-5),
    dict(schedule="warmup_cosine", **WARMED | {"schedule_steps": 50}),
    dict(schedule="one_cycle", warmup_steps=0),
    dict(schedule="step", decay_steps=2, decay_rate=0.5),
)


class TestChanges:
    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["schedule"])
    def test_what_a_switch_makes_of_the_flags_is_an_experiment(self, shape):
        base = command_line.parse(["", *BASES["normalized"]], "fp32")[0]
        base = base.replace(**shape)
        for switch in SWITCHES.values():
            if switch.experiment and switch.applies(base):
                changed = switch.experiment(base)
                assert len(learning_rates(changed, 20)) == 20
                OPTIMIZERS[changed.optimizer](changed)


class TestPatched:
    def test_holds_inside_and_is_undone(self):
        plain = {
            name: [
                vars(p.holder)[p.name]
                if not isinstance(p.holder, dict)
                else p.holder[p.name]
                for p in switch.patches
            ]
            for name, switch in SWITCHES.items()
        }
        with patched([SWITCHES["lstm_gate_order"]]):
            assert recurrence.CELLS["lstm"] is not plain["lstm_gate_order"][0]
        with (
            pytest.raises(RuntimeError, match="inside"),
            patched(list(SWITCHES.values())),
        ):
            raise RuntimeError("inside")
        for name, switch in SWITCHES.items():
            for patch, value in zip(switch.patches, plain[name]):
                present = (
                    patch.holder[patch.name]
                    if isinstance(patch.holder, dict)
                    else vars(patch.holder)[patch.name]
                )
                assert present is value

    def test_the_last_is_on_top(self):
        holder = {"x": 1}
        add, double = (
            Switch(
                name,
                (UPDATE,),
                "",
                "",
                lambda e: True,
                patches=(Patch(holder, "x", make),),
            )
            for name, make in (("add", lambda x: x + 1), ("double", lambda x: 2 * x))
        )
        with patched([add, double]):
            assert holder["x"] == 4
        assert holder["x"] == 1


class TestCompose:
    def test_changes_of_flags_add_up(self):
        experiment = experiments()[0]
        both = changed_experiment(
            experiment, [SWITCHES["adam_eps"], SWITCHES["dropout_off"]]
        )
        assert both == experiment.replace(
            adam_eps=100 * experiment.adam_eps, dropout_rates=()
        )

    def test_functions_are_applied_in_turn(self):
        first, second, none = (
            Switch("", (), "", "", lambda e: True, after=after)
            for after in (
                lambda tensors, situation: tensors | {"a": 1},
                lambda tensors, situation: tensors | {"b": tensors["a"] + 1},
                None,
            )
        )
        assert apply("after", (first, none, second), {}, None) == {"a": 1, "b": 2}


class TestListing:
    def test_all_of_them(self, run):
        said = run("parity.semantics").stdout
        assert f"{len(SWITCHES)} of {len(SWITCHES)} switches" in said
        assert all(name in said for name in SWITCHES)

    def test_those_of_an_experiment(self, run):
        said = run(
            "parity.semantics",
            "--model=gru",
            "--hidden_sizes=4",
            "--dataset=sine",
            "--loss=mse",
        ).stdout
        assert "gru_update_gate_flipped" in said
        assert "causal_mask_missing" not in said

    def test_every_row_that_is_referred_to_is_there(self):
        document = (
            pathlib.Path(semantics.__file__).with_name("MISMATCHES.md").read_text()
        )
        rows = set(re.findall(r"^\| ([DOL]\d+) \|", document, re.MULTILINE))
        referred = {
            row
            for switch in SWITCHES.values()
            if "MISMATCHES" in switch.reference
            for row in re.findall(r"\b[DOL]\d+\b", switch.reference)
        }
        assert referred
        assert referred <= rows

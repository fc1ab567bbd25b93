"""Tests of jaxnn/experiment/flags/config.py."""

import dataclasses
import re

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnn.experiment import catalogue
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line, consistency, options, parsing
from jaxnn.experiment.flags.config import Experiment

FIELDS = {field.name: field for field in dataclasses.fields(Experiment)}
RUN_ONLY = {
    "workdir",
    "overwrite",
    "resume",
    "init_params",
    "record",
    "record_steps",
    "tensorboard",
    "wandb",
    "ds_config",
    "ds_auto",
    "coordinator_address",
    "num_processes",
    "process_id",
    "distributed",
    "initialization_timeout",
    "grace_seconds",
}
MLP = Experiment(
    precision="fp32", model="mlp", hidden_sizes=(8, 4), dropout_rates=(0.5, 0.0)
)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C"])).map(str.strip)


def parse(*arguments):
    return command_line.parse(["prog", *arguments], "fp32")[0]


def values_of(field):
    """Any value that the field's own rules allow."""
    rules = field.metadata
    if any(rules["choices"]):
        return st.sampled_from(list(filter(None, rules["choices"])))
    if isinstance(field.default, bool):
        return st.booleans()
    if isinstance(field.default, int):
        below = rules["below"] or 2**31
        return st.integers(rules["minimum"], below - 1)
    if field.name == "delimiter":
        return st.sampled_from(["", "tab", ";", "|"])
    if isinstance(field.default, float):
        # What float32 tells from its bounds.
        most = (1 - 2**-24) * rules["below"] if rules["below"] else 1e36
        positive = st.floats(1e-36, most)
        return positive if rules["minimum"] is None else st.just(0.0) | positive
    return LINES


@st.composite
def experiments(draw):
    """Valid experiments, without what belongs to one run."""
    fields = {
        name: draw(values_of(field))
        for name, field in FIELDS.items()
        if name not in RUN_ONLY and not isinstance(field.default, tuple)
    }
    fields["name"] = fields["name"].replace("/", "")[:50]
    facts = catalogue.MODELS[fields["model"]]
    layers = draw(st.integers(1, 3)) if facts.hidden == catalogue.REQUIRED else 0
    rates = draw(
        st.one_of(st.just(()), st.tuples(*[values_of(FIELDS["momentum"])] * layers))
    )
    # Their products stay below what an integer flag may be.
    for factor in ("batch_size", "num_devices", "accumulation_steps"):
        fields[factor] = draw(st.integers(1, 1000))
    for factor in ("width", "num_heads"):
        fields[factor] = draw(st.integers(1, 40_000))
    fields["batch_size"] *= (fields["num_devices"] or 1) * fields["accumulation_steps"]
    fields["learning_rate"] = draw(st.floats(1e-36, 1e36))
    fields["min_learning_rate"] = draw(
        st.just(0.0) | st.floats(1e-37, fields["learning_rate"])
    )
    fields["min_loss_scale"] = 2.0 ** draw(
        # 1e37 at most.
        st.integers(-10, min(fields["initial_scale_power"], 122))
    )
    fields["resnet_depth"] = draw(st.sampled_from(consistency.RESNET_DEPTHS))
    fields["kernel_size"] |= 1
    fields["width"] *= fields["num_heads"]
    fields["fold"] = draw(st.integers(0, max(fields["num_folds"], 1) - 1))
    fields["num_folds"] += fields["num_folds"] == 1
    fields["data_path"] = fields["data_path"] or "data.csv"
    fields["num_classes"] += 2 * (fields["num_classes"] < 2)
    fields["freeze"] = re.escape(fields["freeze"])
    for name, allowed in (
        ("residual", fields["model"] == "mlp"),
        ("use_bias", facts.family in consistency.UNBIASED),
        ("freeze", not fields["diagnose"]),
        ("normalization", fields["model"] in ("mlp", "cnn")),
        ("weight_decay", fields["optimizer"] == "adamw"),
        ("label_smoothing", fields["loss"] == "cross_entropy"),
        ("patience", fields["validation_fraction"] > 0),
        (
            "warmup_steps",
            "warmup" in fields["schedule"] or fields["schedule"] == "one_cycle",
        ),
    ):
        fields[name] = fields[name] if allowed else FIELDS[name].default
    return Experiment(
        **fields,
        hidden_sizes=draw(st.tuples(*[st.integers(1, 10_000)] * layers)),
        dropout_rates=rates,
        channels=(8,),
        features=draw(st.sampled_from([(), (0, 3)])),
        sample_shape=(8, 8, 1),
    )


class TestExperiment:
    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Experiment().epochs = 1

    @pytest.mark.parametrize("name", FIELDS)
    def test_every_field_has_help(self, name):
        assert FIELDS[name].metadata["help"].strip().endswith(".")

    def test_replace_changes_a_copy(self):
        experiment = Experiment()
        assert experiment.replace(epochs=7) == Experiment(epochs=7)
        assert experiment == Experiment()


class TestDefineFlags:
    def test_one_flag_a_field_with_its_default(self):
        values = flags.FlagValues()
        parsing.define_flags(values)
        assert sorted(values) == sorted(FIELDS)
        assert parse() == Experiment(precision="fp32")

    def test_help_lists_the_choices(self):
        values = flags.FlagValues()
        parsing.define_flags(values)
        assert values["precision"].help.endswith("One of: fp64, fp32, bf16, fp16.")
        assert "One of" not in values["epochs"].help


class TestFromFlags:
    def test_precision_left_out_is_the_programs(self):
        assert command_line.parse(["prog"], "fp16")[0].precision == "fp16"
        assert (
            command_line.parse(["prog", "--precision=bf16"], "fp16")[0].precision
            == "bf16"
        )

    def test_lists(self):
        experiment = parse(
            "--model=mlp", "--hidden_sizes=64,32", "--dropout_rates=0.3,0"
        )
        assert (experiment.hidden_sizes, experiment.dropout_rates) == (
            (64, 32),
            (0.3, 0.0),
        )

    @pytest.mark.parametrize(
        "argument", ["--hidden_sizes=64,x", "--hidden_sizes=6.4", "--dropout_rates=a"]
    )
    def test_refuses_a_list_of_another_type(self, argument):
        with pytest.raises(UserError, match=f"^{argument.split('=')[0]}: takes"):
            parse("--model=mlp", argument)

    def test_checks(self):
        with pytest.raises(UserError, match=r"^--epochs: must be at least 1, got 0$"):
            parse("--epochs=0")


class TestCheck:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("dataset", "imagenet"),
            ("preprocess", ""),
            ("model", "kan"),
            ("activation", "mish"),
            ("initializer", "ones"),
            ("loss", "l1"),
            ("optimizer", "lion"),
            ("schedule", "staircase"),
            ("precision", "fp8"),
            ("fp16_kernels", ""),
            ("record", "all"),
            ("num_samples", 0),
            ("epochs", 0),
            ("batch_size", 0),
            ("max_steps", -1),
            ("checkpoint_every", -1),
            ("seed", -1),
            ("split_seed", -1),
            ("seed", 2**31),
            ("split_seed", 2**31),
            ("num_devices", -1),
            ("record_steps", 0),
            ("test_fraction", 0.0),
            ("test_fraction", 1.0),
            ("learning_rate", 0.0),
            ("learning_rate", -1e-3),
            ("adam_b1", -0.1),
            ("adam_b1", 1.0),
            ("adam_b2", -0.1),
            ("adam_b2", 1.0),
            ("adam_eps", 0.0),
            ("initial_scale_power", -1),
            ("initial_scale_power", 128),
            ("loss_scale_window", 0),
            ("hysteresis", 0),
            ("min_loss_scale", 0.0),
            ("static_loss_scale", -1.0),
            ("zero_stage", -1),
            ("zero_stage", 4),
            ("hidden_sizes", (8, 0)),
            ("dropout_rates", (0.5, 1.0)),
            ("dropout_rates", (-0.1, 0.5)),
            ("dropout_rates", (float("nan"), 0.5)),
            *(
                (name, bad)
                for name in (
                    "test_fraction",
                    "learning_rate",
                    "adam_b1",
                    "adam_b2",
                    "adam_eps",
                    "min_loss_scale",
                )
                for bad in (float("nan"), float("inf"))
            ),
        ],
    )
    def test_names_the_flag(self, name, value):
        with pytest.raises(UserError, match=rf"^--(\w+, --)*{name}[,:] "):
            consistency.check(MLP.replace(**{name: value}))

    def test_unknown_value_lists_the_known(self):
        with pytest.raises(
            UserError, match=r"^--gate: unknown value 'nor'; known: and, or, nand, xor$"
        ):
            consistency.check(MLP.replace(gate="nor"))

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            dict(seed=2**31 - 1, split_seed=2**31 - 1),
            dict(adam_b1=0.0, adam_b2=0.0),
            dict(dropout_rates=()),
            dict(batch_size=12, num_devices=4),
            dict(zero_stage=2),
            dict(initial_scale_power=0),
            dict(precision=""),
        ],
    )
    def test_allows_the_bounds(self, changes):
        consistency.check(MLP.replace(**changes))

    @given(experiments())
    @settings(deadline=None, max_examples=50, derandomize=True)
    def test_allows_every_valid_experiment(self, experiment):
        consistency.check(experiment)


class TestToFlagfile:
    @given(experiments())
    @settings(deadline=None, max_examples=200, derandomize=True)
    def test_parses_back(self, tmp_path_factory, experiment):
        path = tmp_path_factory.getbasetemp() / "round_trip.flags"
        path.write_text(options.to_flagfile(experiment))
        assert parse(f"--flagfile={path}") == experiment

    def test_a_line_for_every_flag_but_the_runs_own(self):
        text = options.to_flagfile(
            MLP.replace(
                workdir="w", overwrite=True, resume=True, init_params="p", record="full"
            )
        )
        names = [line.removeprefix("--").split("=")[0] for line in text.splitlines()]
        assert names == [name for name in FIELDS if name not in RUN_ONLY]
        assert "--hidden_sizes=8,4\n" in text
        assert "--plots=true\n" in text

"""Round trips: an experiment written as a ds_config is read as the same experiment."""

import dataclasses
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxnn.experiment.flags import consistency
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import writing
from tests.jaxnn.experiment.flags.deepspeed.entries import fast


def amounts(most):
    """Zero, or what float32 tells from it even after a multiplication."""
    return st.just(0.0) | st.floats(1e-15, most)


@st.composite
def expressible(draw):
    """(experiment, ranks) that a ds_config can express."""
    ranks = draw(st.integers(1, 4))
    power = draw(st.integers(0, 127))
    shares = amounts(1 - 2**-23)
    small = st.floats(1e-12, 10)
    microbatches = draw(st.integers(1, 5))
    optimizer = draw(st.sampled_from(sorted(writing.OPTIMIZERS)))
    kept = {"momentum": st.floats(1e-6, 0.999)}
    own = {
        "sgd": {},
        "momentum": kept,
        "nesterov": kept,
        "adam": {
            "adam_b1": shares,
            "adam_b2": shares,
            "adam_eps": small,
            "fused_adam": st.booleans(),
        },
        "rmsprop": {"rmsprop_decay": shares, "rmsprop_eps": small},
        "adagrad": {"adagrad_eps": small, "adagrad_initial": amounts(10)},
    }
    fields = {
        name: draw(values)
        for name, values in own["adam" if optimizer == "adamw" else optimizer].items()
    }
    fields["weight_decay" if optimizer == "adamw" else "l2"] = draw(amounts(1))
    fields["learning_rate"] = draw(small)
    curve = draw(st.sampled_from(["constant", *writing.SCHEDULERS]))
    if curve != "constant":
        fields |= {
            "warmup_steps": draw(st.integers(1, 1000)),
            "warmup_type": draw(st.sampled_from(["log", "linear"])),
            "min_learning_rate": draw(amounts(1)) * fields["learning_rate"],
        }
    if curve in ("warmup_decay_lr", "warmup_cosine_lr"):
        fields["schedule_steps"] = draw(st.integers(1, 10**6))
    if curve == "warmup_cosine_lr":
        fields["final_learning_rate"] = (
            draw(st.sampled_from([0.0, 0.5])) * fields["learning_rate"]
        )
        assume(
            fields["final_learning_rate"] != fields["min_learning_rate"]
            or not fields["final_learning_rate"]
        )
    return Experiment(
        optimizer=optimizer,
        schedule=curve,
        batch_size=ranks * microbatches * draw(st.integers(1, 64)),
        num_devices=ranks,
        accumulation_steps=microbatches,
        clip_norm=draw(amounts(10)),
        zero_stage=draw(st.integers(0, 3)),
        precision=draw(st.sampled_from(["fp32", "bf16", "fp16"])),
        initial_scale_power=power,
        loss_scale_window=draw(st.integers(1, 2000)),
        hysteresis=draw(st.integers(1, 9)),
        consecutive_hysteresis=draw(st.booleans()),
        # 1e37 at most.
        min_loss_scale=2.0 ** draw(st.integers(0, min(power, 122))),
        static_loss_scale=draw(amounts(2.0**20)),
        **fields,
    ), ranks


class TestRoundTrip:
    RATIOS = ("min_learning_rate", "final_learning_rate")

    @given(expressible())
    @settings(fast, max_examples=200)
    def test_a_written_file_is_the_experiment_again(self, read, drawn):
        experiment, ranks = drawn
        consistency.check(experiment)
        again, _ = read(
            writing.file_config(experiment, ranks, experiment.schedule_steps),
            f"--num_devices={ranks}",
        )
        if experiment.schedule == "warmup_cosine_lr":
            # Through a division and a multiplication, half an ulp each.
            for name in self.RATIOS:
                assert getattr(again, name) == pytest.approx(
                    getattr(experiment, name), rel=2.0**-51, abs=0
                )
            again = again.replace(
                **{name: getattr(experiment, name) for name in self.RATIOS}
            )
        assert dataclasses.asdict(again) == dataclasses.asdict(experiment)

    @given(expressible())
    @fast
    def test_deepspeed_reads_the_file_too(self, theirs, drawn):
        experiment, ranks = drawn
        entries = writing.file_config(experiment, ranks, experiment.schedule_steps)
        expected = theirs(json.loads(json.dumps(entries)), ranks)
        assert expected.train_batch_size == experiment.batch_size
        assert expected.optimizer_params == entries["optimizer"]["params"]

"""The judge on recordings made in this process: it sees what it should and is quiet on
a ReLU's kink."""

import numpy as np
import pytest

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line
from parity.judging import diagnose, measure
from parity.judging.replays import Replays
from parity.judging.rounds import IN_ULPS, ULPS_FIRST
from parity.judging.step import Judge
from parity.mutations.score import Enacted
from parity.noise import FLOAT32, FLOAT64, norm
from parity.quantities import GRADIENTS, RULES, UPDATE
from parity.replay import Replay
from parity.semantics import SWITCHES

STEPS = 6


def record(workdir, name, *flags):
    """(Experiment, data, trace) of jaxnn.train, recorded in FP16."""
    experiment, _ = command_line.parse(
        [
            "",
            f"--flagfile=launch/experiments/{name}.flags",
            "--precision=fp16",
            "--noplots",
            "--record=full",
            f"--record_steps={STEPS}",
            f"--max_steps={STEPS}",
            f"--workdir={workdir}",
            "--overwrite",
            # Whose first gradients are longer than 1.
            "--initializer=lecun_normal",
            *flags,
        ],
        "fp16",
    )
    train.main(experiment)
    return experiment, load_dataset(experiment), Reader(workdir / "trace")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return record(tmp_path_factory.mktemp("run"), "breast_cancer")


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    """The same with batch normalization and a batch in two parts."""
    return record(
        tmp_path_factory.mktemp("run"),
        "breast_cancer",
        "--normalization=batch",
        "--accumulation_steps=2",
    )


class Edited:
    """A recording with some tensors of one step changed by functions, or left out by
    None."""

    def __init__(self, trace, number, **changes):
        self.trace, self.number = trace, number
        self.changes = {
            name.replace("__", "/"): change for name, change in changes.items()
        }

    def __len__(self):
        return len(self.trace)

    def read(self, number):
        step = self.trace.read(number)
        if number == self.number:
            step |= {
                name: change(step[name])
                for name, change in self.changes.items()
                if change
            }
            step = {
                name: array
                for name, array in step.items()
                if self.changes.get(name, True)
            }
        return step


def worst(measurements, quantity):
    return max(m.z for m in measurements if m.quantity == quantity)


def judged(recording, number, **changes):
    """One recorded step, some of its tensors changed by functions, judged."""
    experiment, data, trace = recording
    return Judge(
        Replays(experiment, data),
        Edited(trace, number, **changes),
        None,
        measure.THRESHOLD,
    ).step(number)


def rules(recording, trace=None, **changes):
    """What all steps must equal, under changed flags."""
    experiment, data, recorded = recording
    judge = Judge(
        Replays(experiment.replace(**changes), data),
        trace or recorded,
        None,
        measure.THRESHOLD,
    )
    return [m for number in range(STEPS) for m in judge.part(RULES, number)]


class TestStep:
    def test_jaxnn_replays_itself(self, recording):
        for number in range(STEPS):
            assert all(m.z <= 1 for m in judged(recording, number))

    def test_without_noise_an_ulp_is_the_unit(self, recording):
        """What is within an ulp of its replay needs no noise to pass; what is caught is
        then smaller."""
        experiment, data, trace = recording
        plain, quick = (
            Judge(
                Replays(experiment, data), trace, None, measure.THRESHOLD, rounds
            ).part(GRADIENTS, 2)
            for rounds in ((5,), ULPS_FIRST)
        )
        assert all(m.z <= 1 for m in quick)
        assert all(q.detectable <= p.detectable for q, p in zip(quick, plain))

    def test_sees_a_wrong_loss(self, recording):
        measurements = judged(recording, 2, loss=lambda x: x * np.float32(1.01))
        assert worst(measurements, "loss") > 8
        assert worst(measurements, "grads") <= 8

    def test_sees_a_wrong_activation_and_only_it(self, recording):
        measurements = judged(
            recording, 2, activations__hidden_1=lambda x: x * np.float32(1.05)
        )
        assert {(m.quantity, m.tensor) for m in measurements if m.z > 8} == {
            ("activations", "hidden_1")
        }

    def test_sees_one_wrong_gradient_entry_and_only_there(self, recording):
        """From the wrong gradient the optimizer's half is wrong too: it is replayed
        from what was recorded."""

        def nudge(gradient):
            gradient = gradient.copy()
            gradient.flat[np.abs(gradient).argmax()] *= np.float32(1.2)
            return gradient

        measurements = judged(recording, 2, grads__hidden_1__kernel=nudge)
        failed = {(m.quantity, m.tensor) for m in measurements if m.z > 8}
        assert failed == {
            ("grads", "hidden_1/kernel"),
            ("grad_norm", ""),
            ("moments", "first/hidden_1/kernel"),
            ("moments", "second/hidden_1/kernel"),
            ("updated", "hidden_1/kernel"),
        }

    def test_sees_a_wrong_norm(self, recording):
        measurements = judged(recording, 2, grad_norm=lambda x: x * np.float32(1.00001))
        assert {m.quantity for m in measurements if m.z > 8} == {"grad_norm"}

    def test_running_statistics_replay_themselves(self, normalized):
        for number in range(STEPS):
            measurements = judged(normalized, number)
            assert {m.tensor for m in measurements if m.quantity == "batch_stats"} == {
                f"norm_{layer}/{name}" for layer in (0, 1) for name in ("mean", "var")
            }
            assert all(m.z <= 1 for m in measurements)

    def test_sees_a_wrong_running_statistic_and_only_it(self, normalized):
        measurements = judged(
            normalized,
            3,
            updated_batch_stats__norm_1__var=lambda x: x * np.float32(1.01),
        )
        assert {(m.quantity, m.tensor) for m in measurements if m.z > 8} == {
            ("batch_stats", "norm_1/var")
        }

    @pytest.mark.parametrize(
        "name", ["grads/hidden_1/bias", "updated/output/kernel", "activations/hidden_1"]
    )
    def test_refuses_a_recording_that_lacks_a_tensor(self, recording, name):
        with pytest.raises(
            UserError, match=f"cannot judge: step 2 of the recording lacks {name}"
        ):
            judged(recording, 2, **{name.replace("/", "__"): None})

    def test_a_recording_without_any_activations_is_judged_by_the_rest(self, recording):
        layers = ("hidden_0", "hidden_1", "output")
        measurements = judged(
            recording, 2, **{f"activations__{layer}": None for layer in layers}
        )
        assert "activations" not in {m.quantity for m in measurements}
        assert {"loss", "grads", "moments", "updated"} <= {
            m.quantity for m in measurements if m.z <= 1
        }

    def test_refuses_a_tensor_of_another_shape(self, recording):
        with pytest.raises(
            UserError, match="cannot judge: step 2: grads/hidden_1/kernel is "
        ):
            judged(recording, 2, grads__hidden_1__kernel=lambda x: x.T)

    def test_what_is_not_finite_is_not_parity(self, recording):
        measurements = judged(recording, 2, loss=lambda x: np.float32(np.nan))
        assert worst(measurements, "loss") == measure.UNEQUAL

    def test_sees_a_skip_that_should_not_be(self, recording):
        measurements = judged(recording, 2, skipped=lambda _: np.bool_(True))
        assert worst(measurements, "skipped") == measure.UNEQUAL
        assert worst(measurements, "unchanged") == measure.UNEQUAL

    def test_a_relu_on_its_kink_is_noise(self, recording):
        """One hidden unit's input is a rounding away from zero: the gradient of either
        side of the kink passes."""
        assert self.z_across_zero(recording, 2.0**-14) <= 8

    def test_a_relu_off_its_kink_is_not(self, recording):
        """The same unit opened by a thirtieth, far more than rounding: now only one
        gradient is right."""
        assert self.z_across_zero(recording, 2.0**-5) > 8

    def z_across_zero(self, recording, distance):
        """Worst z of gradients that a unit's input of -distance gives, recorded for an
        input of +distance."""
        experiment, data, trace = recording
        replays, step = Replays(experiment, data), dict(trace.read(3))
        replay = replays.under(())
        inputs = replay.inputs(3, step).compute
        unit, kernel = 5, inputs["params/hidden_0/kernel"].astype(np.float64)
        products = inputs["inputs"].astype(np.float64) @ kernel[:, unit]
        row = np.argmax(
            np.abs(products) > 0.25
        )  # its rounding, 2^-13 and more, is what the kink is made of
        opened, shut = (
            self.moved_to(step, unit, side - products[row])
            for side in (distance, -distance)
        )
        gradients = replay.gradients(replay.inputs(3, shut), np.dtype(np.float64))
        changed = {
            name: value.astype(np.float32)
            for name, value in gradients.items()
            if name.startswith("grads/")
        }
        changed["params/hidden_0/bias"] = opened["params/hidden_0/bias"]
        edits = {
            name.replace("/", "__"): lambda _, value=value: value
            for name, value in changed.items()
        }
        return worst(
            Judge(replays, Edited(trace, 3, **edits), None, 8.0).part(GRADIENTS, 3),
            "grads",
        )

    def moved_to(self, step, unit, value):
        bias = step["params/hidden_0/bias"].copy()
        bias[unit] = value
        return step | {"params/hidden_0/bias": bias}


class TestRanks:
    @pytest.mark.parametrize("sync_batch_norm", [True, False])
    def test_number_does_not_matter_but_to_own_statistics(
        self, normalized, sync_batch_norm
    ):
        """Of a batch in two parts, in float64: 10^-10 is thousands of roundings, and
        far less than other statistics."""
        experiment, data, trace = normalized
        experiment = experiment.replace(sync_batch_norm=sync_batch_norm)
        replays = [Replay(experiment, data, world_size=count) for count in (1, 4)]
        one, four = (
            replay.gradients(replay.inputs(2, trace.read(2)), FLOAT64)
            for replay in replays
        )
        is_close = {
            name: norm(one[name] - four[name]) <= 1e-10 * norm(one[name])
            for name in one
            if not name.startswith("grads/hidden") or name.endswith("kernel")
        }  # their biases have none
        assert all(is_close.values()) == is_close["loss"] == sync_batch_norm


class TestUnderSwitches:
    """A clean recording, replayed under a known difference, is one that does not do
    what the replay does."""

    @pytest.mark.parametrize(
        ("switch", "part"),
        [
            ("dropout_off", GRADIENTS),
            ("adam_eps", UPDATE),
            ("schedule_counts_skipped", RULES),
            ("clip_added", UPDATE),
        ],
    )
    def test_every_part_takes_them(self, recording, switch, part):
        experiment, data, trace = recording
        judge = Judge(Replays(experiment, data), trace, None, measure.THRESHOLD)
        moved = any(
            m.z > 8
            for number in range(STEPS)
            for m in judge.part(part, number, (SWITCHES[switch],))
        )
        assert moved == (switch != "schedule_counts_skipped")  # nothing is skipped
        assert all(m.z <= 1 for m in judge.step(2))

    @pytest.mark.parametrize("switches", [(), (SWITCHES["dropout_off"],)])
    def test_a_glance_sees_what_the_part_does(self, recording, switches):
        experiment, data, trace = recording
        replays = Replays(experiment, data)
        judge = Judge(replays, trace, None, measure.THRESHOLD, IN_ULPS)
        glanced = judge.glance(2, switches)
        whole = judge.part(GRADIENTS, 2, switches)
        # The decision to skip and the norm have no distance.
        pairs = [(g, w) for g, w in zip(glanced, whole, strict=True) if w.detectable]
        assert len(pairs) > 5
        assert all(abs(g.z - w.z) <= 10 + 1e-4 * w.z for g, w in pairs)
        assert any(w.z > 1e3 for _, w in pairs) == bool(switches)

    def test_gradients_summed_over_two_ranks_are_named(self, recording):
        experiment, data, trace = recording[0].replace(num_devices=2), *recording[1:]
        replays = Replays(experiment, data, world_size=2)
        enacted = Judge(replays, trace, None, measure.THRESHOLD).enacted(
            2, (SWITCHES["ranks_summed"],)
        )
        replay = replays.under(())
        enacted |= {
            name: array.astype(np.float32)
            for name, array in replay.update(replay.inputs(2, enacted), FLOAT32).items()
        }
        judge = Judge(replays, Enacted(trace, 2, enacted), None, measure.THRESHOLD)
        best, *_ = diagnose.diagnose(
            judge.part,
            [2],
            experiment,
            measure.THRESHOLD,
            {
                name: SWITCHES[name]
                for name in (
                    "loss_summed",
                    "half_factor",
                    "ranks_summed",
                    "unscaled_twice",
                )
            },
        )
        assert best.names == ("ranks_summed",)
        assert best.after <= measure.THRESHOLD < best.before


class TestRules:
    def test_quiet_on_a_clean_recording(self, recording):
        assert all(m.z == 0 for m in rules(recording))

    def test_sees_statistics_that_do_not_go_on_where_they_were(self, normalized):
        trace = Edited(
            normalized[2], 3, batch_stats__norm_0__mean=lambda x: x + np.float32(1e-3)
        )
        assert not [m for m in rules(normalized) if m.z]
        broken = [(m.step, m.tensor) for m in rules(normalized, trace) if m.z]
        assert broken == [(3, "batch_stats/norm_0/mean")]

    def test_sees_a_start_that_is_not_the_given_one(self, recording):
        experiment, data, trace = recording
        initial = {
            name.removeprefix("params/"): array
            for name, array in trace.read(0).items()
            if name.startswith("params/")
        }
        initial["output/bias"] = initial["output/bias"] + np.float32(1)
        broken = [
            m.tensor
            for m in Judge(Replays(experiment, data), trace, initial, 8.0).part(
                RULES, 0
            )
            if m.z
        ]
        assert broken == ["params/output/bias"]

    def test_sees_moments_that_do_not_start_at_zero(self, recording):
        trace = Edited(
            recording[2], 0, moments__first__output__bias=lambda x: x + np.float32(1)
        )
        assert [m.tensor for m in rules(recording, trace) if m.z] == [
            "moments/first/output/bias"
        ]

    def test_sees_another_order_of_samples(self, recording):
        trace = Edited(recording[2], 4, batch__ids=lambda ids: ids[::-1].copy())
        # The digests stay as they were: other ids name other rows.
        assert [(m.step, m.quantity) for m in rules(recording, trace) if m.z] == [
            (4, "batch"),
            (4, "inputs"),
            (4, "targets"),
        ]

    def test_sees_another_schedule_and_another_scaler(self, recording):
        broken = {
            m.quantity
            for m in rules(recording, schedule="cosine", initial_scale_power=15)
            if m.z
        }
        assert broken == {"learning_rate", "loss_scale"}

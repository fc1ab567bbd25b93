"""The judge on recordings made in this process: it sees what it should and is quiet on a ReLU's kink."""

import numpy as np
import pytest

from jaxnn import train
from jaxnn.experiment import batches, command_line, datasets
from jaxnn.experiment.config import UserError
from jaxnn.experiment.trace import Reader
from parity import compare, judge
from parity.replay import Replay

STEPS = 6


def record(workdir, name, *flags):
    """(Experiment, data, trace) of jaxnn.train, recorded in FP16."""
    experiment, _ = command_line.parse(
        ["", f"--flagfile=launch/experiments/{name}.flags", "--precision=fp16", "--noplots", "--record=full",
         f"--record_steps={STEPS}", f"--max_steps={STEPS}", f"--workdir={workdir}", "--overwrite", *flags], "fp16")
    train.main(experiment)
    return experiment, datasets.load(experiment), Reader(workdir / "trace")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return record(tmp_path_factory.mktemp("run"), "breast_cancer")


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    """The same with batch normalization and a batch in two parts."""
    return record(tmp_path_factory.mktemp("run"), "breast_cancer", "--normalization=batch", "--accumulation_steps=2")


def worst(measurements, quantity):
    return max(m.z for m in measurements if m.quantity == quantity)


def judged(recording, number, **changes):
    """One recorded step, some of its tensors changed by functions, judged."""
    experiment, data, trace = recording
    step = trace.read(number)
    step |= {name.replace("__", "/"): change(step[name.replace("__", "/")]) for name, change in changes.items()}
    return judge.judge_step(Replay(experiment, data), number, step, compare.THRESHOLD)


class TestJudgeStep:
    def test_jaxnn_replays_itself(self, recording):
        for number in range(STEPS):
            assert all(m.z <= 1 for m in judged(recording, number))

    def test_sees_a_wrong_loss(self, recording):
        measurements = judged(recording, 2, loss=lambda x: x * np.float32(1.01))
        assert worst(measurements, "loss") > 8
        assert worst(measurements, "grads") <= 8

    def test_sees_one_wrong_gradient_entry_and_only_there(self, recording):
        """From the wrong gradient the optimizer's half is wrong too: it is replayed from what was recorded."""

        def nudge(gradient):
            gradient = gradient.copy()
            gradient.flat[np.abs(gradient).argmax()] *= np.float32(1.2)
            return gradient

        measurements = judged(recording, 2, grads__hidden_1__kernel=nudge)
        failed = {(m.quantity, m.tensor) for m in measurements if m.z > 8}
        assert failed == {("grads", "hidden_1/kernel"), ("moments", "first/hidden_1/kernel"),
                          ("moments", "second/hidden_1/kernel"), ("updated", "hidden_1/kernel")}

    def test_running_statistics_replay_themselves(self, normalized):
        for number in range(STEPS):
            measurements = judged(normalized, number)
            assert {m.tensor for m in measurements if m.quantity == "batch_stats"} == {
                f"norm_{layer}/{name}" for layer in (0, 1) for name in ("mean", "var")}
            assert all(m.z <= 1 for m in measurements)

    def test_sees_a_wrong_running_statistic_and_only_it(self, normalized):
        measurements = judged(normalized, 3, updated_batch_stats__norm_1__var=lambda x: x * np.float32(1.01))
        assert {(m.quantity, m.tensor) for m in measurements if m.z > 8} == {("batch_stats", "norm_1/var")}

    @pytest.mark.parametrize("name", ["grads/hidden_1/bias", "updated/output/kernel"])
    def test_refuses_a_recording_that_lacks_a_tensor(self, recording, name):
        experiment, data, trace = recording
        step = trace.read(2)
        del step[name]
        with pytest.raises(UserError, match=f"cannot judge: step 2 of the recording lacks {name}"):
            judge.judge_step(Replay(experiment, data), 2, step, compare.THRESHOLD)

    def test_sees_a_skip_that_should_not_be(self, recording):
        measurements = judged(recording, 2, skipped=lambda _: np.bool_(True))
        assert worst(measurements, "skipped") == compare.BROKEN
        assert worst(measurements, "unchanged") == compare.BROKEN

    def test_a_relu_on_its_kink_is_noise(self, recording):
        """One hidden unit's input is a rounding away from zero: the gradient of either side of the kink passes."""
        assert self.z_across_zero(recording, 2.0**-14) <= 8

    def test_a_relu_off_its_kink_is_not(self, recording):
        """The same unit opened by a thirtieth, far more than rounding: now only one gradient is right."""
        assert self.z_across_zero(recording, 2.0**-5) > 8

    def z_across_zero(self, recording, distance):
        """Worst z of gradients that a unit's input of -distance gives, recorded for an input of +distance."""
        experiment, data, trace = recording
        replay, step = Replay(experiment, data), dict(trace.read(3))
        inputs = replay.inputs(3, step).compute
        unit, kernel = 5, inputs["params/hidden_0/kernel"].astype(np.float64)
        products = inputs["inputs"].astype(np.float64) @ kernel[:, unit]
        row = np.argmax(np.abs(products) > 0.25)  # its rounding, 2^-13 and more, is what the kink is made of
        sides = []
        for side in (distance, -distance):
            bias = step["params/hidden_0/bias"].copy()
            bias[unit] = side - products[row]
            sides.append(step | {"params/hidden_0/bias": bias})
        opened, shut = sides
        gradients = replay.gradients(replay.inputs(3, shut), np.dtype(np.float64))
        opened |= {name: value.astype(np.float32) for name, value in gradients.items() if name.startswith("grads/")}
        return worst(judge.judge_step(replay, 3, opened, 8.0), "grads")


class TestJudgeRules:
    def test_quiet_on_a_clean_recording(self, recording):
        experiment, data, trace = recording
        total = batches.total_steps(experiment, len(data.train_inputs))
        assert all(m.z == 0 for m in judge.judge_rules(experiment, trace, total))

    def test_sees_statistics_that_do_not_go_on_where_they_were(self, normalized, tmp_path):
        experiment, data, trace = normalized

        class Cut:
            def __len__(self):
                return STEPS

            def read(self, number):
                step = trace.read(number)
                if number == 3:
                    step["batch_stats/norm_0/mean"] = step["batch_stats/norm_0/mean"] + np.float32(1e-3)
                return step

        total = batches.total_steps(experiment, len(data.train_inputs))
        assert not [m for m in judge.judge_rules(experiment, trace, total) if m.z]
        broken = [(m.step, m.tensor) for m in judge.judge_rules(experiment, Cut(), total) if m.z]
        assert broken == [(3, "batch_stats/norm_0/mean")]

    def test_sees_another_schedule_and_another_scaler(self, recording):
        experiment, data, trace = recording
        total = batches.total_steps(experiment, len(data.train_inputs))
        other = experiment.replace(schedule="cosine", initial_scale_power=15)
        broken = {m.quantity for m in judge.judge_rules(other, trace, total) if m.z}
        assert broken == {"learning_rate", "loss_scale"}

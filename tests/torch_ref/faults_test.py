"""Tests of torch_ref/faults: what each fault moves, from which step on, and by how much.

One process trains every case; each is compared bit by bit with the run of its experiment without a fault.
"""

import functools
import json
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
import torch

from jaxnn.experiment import command_line, datasets, schedules
from jaxnn.experiment.config import Experiment
from jaxnn.experiment.trace import Reader, select
from parity.semantics import SWITCHES
from torch_ref.dropout import dropout, mask_source
from torch_ref.faults import FAULTS
from torch_ref.faults.fault import EVENT, START, STEP

STEPS, FIRST, BATCH = 6, 2, 128
UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11}
COMMON = ("--precision=fp32", f"--max_steps={STEPS}", "--record=full", "--noplots", "--initial_scale_power=8")
FP16, BF16 = "--precision=fp16", "--precision=bf16"
SKIPS = (FP16, "--initial_scale_power=20", "--hysteresis=1")

DIGITS = ("--dataset=digits", "--preprocess=min_max", "--loss=cross_entropy", "--test_fraction=0.05", "--batch_size=16",
          "--epochs=1")
EXPERIMENTS = {
    "mlp": ("--dataset=breast_cancer", "--preprocess=standardize", "--model=mlp", "--hidden_sizes=8,8",
            "--dropout_rates=0.3,0.2", "--loss=binary_cross_entropy", f"--batch_size={BATCH}", "--epochs=2",
            "--learning_rate=0.01", "--schedule=cosine"),
    "line": ("--num_samples=64", "--batch_size=16", "--epochs=2", "--optimizer=sgd", "--learning_rate=0.1"),
    "cnn": (*DIGITS, "--model=cnn", "--channels=2,3", "--hidden_sizes=8", "--normalization=batch", "--activation=gelu"),
    "resnet": (*DIGITS, "--model=resnet"),
    "lstm": ("--dataset=sine", "--model=lstm", "--hidden_sizes=4", "--sequence_length=8", "--num_samples=100",
             "--initializer=torch_default", "--batch_size=16", "--epochs=2"),
    "transformer": ("--dataset=text", "--model=transformer", "--width=8", "--num_heads=2", "--num_layers=1",
                    "--sequence_length=8", "--loss=cross_entropy", "--test_fraction=0.01", "--batch_size=16",
                    "--epochs=1"),
}
"""The batches of "mlp" are 128, 128, 128 and 71 samples. Under SKIPS its step 0 overflows, and 1 and 2 do not."""

UPDATED, RATE = {"updated"}, {"learning_rate", "updated"}
MOMENTS = {"updated_moments"} | UPDATED
GRADS = {"grads", "grad_norm"} | MOMENTS
LOSS = {"loss"} | GRADS
FORWARD = {"activations"} | LOSS
IMAGES = {"updated_batch_stats"} | FORWARD


class Case(NamedTuple):
    """A fault in an experiment; which kinds of tensors it moves in the first step that it moves."""

    fault: str
    experiment: str
    flags: tuple[str, ...] = ()
    kinds: frozenset[str] | set[str] = frozenset()
    first: int = FIRST

    def __str__(self):
        return "-".join((self.fault, self.experiment, *(flag.removeprefix("--") for flag in self.flags)))

    @property
    def clean(self) -> "Case":
        return Case("", self.experiment, self.flags)

    @property
    def flag_values(self) -> tuple[str, ...]:
        return *COMMON, *EXPERIMENTS[self.experiment], *self.flags


def cases(experiment: str, kinds: set[str], *faults: str, flags: tuple[str, ...] = (),
          first: int = FIRST) -> list[Case]:
    return [Case(fault, experiment, flags, kinds, first) for fault in faults]


CASES = [
    *cases("mlp", RATE, "learning_rate_early", "learning_rate_late"),
    *cases("mlp", RATE, "schedule_counts_skipped", flags=SKIPS),
    *cases("mlp", {"optimizer_step"}, "skipped_steps_counted", flags=SKIPS),
    *cases("mlp", {"params"} | UPDATED, "masters_not_rounded", flags=(FP16,), first=0),
    *cases("mlp", {"params"} | UPDATED, "masters_not_rounded", flags=(BF16,), first=0),
    *cases("mlp", {"params"} | FORWARD, "weights_reloaded"),
    *cases("mlp", {"params"} | FORWARD, "weights_reloaded", flags=(FP16,)),
    *cases("mlp", {"moments"} | MOMENTS, "moments_reset"),
    *cases("mlp", {"batch"} | FORWARD, "not_shuffled", first=0),
    *cases("mlp", {"batch"} | FORWARD, "same_order_every_epoch", first=4),
    *cases("line", {"loss_scale"} | UPDATED, "scale_grows_early", flags=(FP16, "--loss_scale_window=3"), first=3),

    *cases("mlp", MOMENTS, "unscaled_twice", flags=(FP16,)),
    *cases("mlp", LOSS, "loss_summed"),
    *cases("mlp", LOSS, "loss_summed", flags=(FP16,)),
    *cases("line", LOSS - {"updated_moments"}, "half_factor"),
    *cases("mlp", LOSS, "padding_counted", first=3),
    *cases("mlp", GRADS, "accumulation_not_averaged", "last_part_only", flags=("--accumulation_steps=2",)),
    *cases("mlp", GRADS, "gradients_not_zeroed"),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=(FP16,)),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=(BF16,)),
    *cases("mlp", GRADS, "gradients_not_zeroed", flags=("--accumulation_steps=2",)),
    *cases("line", FORWARD - {"updated_moments"}, "stale_parameters"),
    *cases("mlp", FORWARD, "stale_parameters", flags=(FP16,)),
    *cases("mlp", FORWARD, "stale_parameters", flags=("--accumulation_steps=2",)),
    *cases("mlp", FORWARD, "dropout_not_divided", "dropout_mask_reused"),
    *cases("mlp", FORWARD, "computed_in_bf16"),
    *cases("mlp", LOSS, "probabilities_as_logits"),
    *cases("transformer", LOSS, "probabilities_as_logits"),

    *cases("cnn", IMAGES, "gelu_tanh", "batch_norm_by_running", "batch_norm_epsilon", "flatten_order",
           "kernel_flipped"),
    *cases("cnn", {"updated_batch_stats"}, "batch_norm_momentum_flipped", "batch_norm_biased_variance"),
    *cases("resnet", IMAGES, "padding_asymmetric"),
    *cases("mlp", FORWARD, "kernel_transposed"),
    *cases("lstm", FORWARD, "lstm_gate_order", "lstm_forget_bias", "one_recurrent_bias"),
    *cases("lstm", FORWARD, "lstm_gate_order", flags=(FP16,)),
    *cases("lstm", FORWARD, "gru_update_gate_flipped", "one_recurrent_bias", flags=("--model=gru",)),
    *cases("lstm", FORWARD, "one_recurrent_bias", flags=("--model=rnn",)),
    *cases("transformer", FORWARD, "gelu_tanh", "layer_norm_epsilon", "kernel_transposed", "causal_mask_off_by_one",
           "causal_mask_missing", "attention_unscaled", "embedding_scaled", "positions_missing"),
    *cases("transformer", FORWARD, "causal_mask_missing", "positions_missing", flags=(FP16,)),

    *cases("mlp", UPDATED, "eps_inside_root", "bias_correction_missing", "bias_correction_late",
           flags=("--adam_eps=0.001",)),
    *cases("mlp", UPDATED, "eps_inside_root", flags=("--optimizer=rmsprop", "--rmsprop_eps=0.001", "--l2=0.1")),
    *cases("mlp", UPDATED, "eps_inside_root", flags=("--optimizer=adagrad", "--adagrad_eps=0.001", "--l2=0.1")),
    *cases("mlp", UPDATED, "eps_inside_root", "decay_not_times_rate",
           flags=("--optimizer=adamw", "--weight_decay=0.1", "--adam_eps=0.001")),
    *cases("mlp", UPDATED, "bias_correction_late", flags=("--nofused_adam", "--l2=0.1")),
    *cases("line", UPDATED, "clip_by_value", "clip_by_tensor", flags=("--clip_norm=0.01",)),
    *cases("line", UPDATED, "clip_normalizes", flags=("--clip_norm=100",)),
    *cases("mlp", MOMENTS, "clip_without_eps", flags=("--clip_norm=0.01",)),
    *cases("line", UPDATED, "clip_by_value", "clip_before_unscale", flags=(FP16, "--clip_norm=1")),
    *cases("mlp", MOMENTS, "clip_before_unscale", flags=(FP16, "--initial_scale_power=16", "--clip_norm=0.5")),
    *cases("mlp", UPDATED, "half_precision_masters", flags=(FP16,)),
    *cases("mlp", UPDATED, "half_precision_masters", flags=(BF16,)),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def jobs_of(folder: pathlib.Path) -> dict[str, Case]:
    """Folder -> what is trained into it: the clean runs before and after all faults."""
    clean = {case.clean: None for case in CASES}
    plain = [case for case in clean if not case.flags]
    names = {f"before-{case}": case for case in clean} | {str(case): case for case in CASES}
    return {str(folder / name): case for name, case in (names | {f"after-{case}": case for case in plain}).items()}


def run_all(folder: pathlib.Path) -> None:
    """Runs every case in one process."""
    jobs = [{"fault": case.fault, "first_step": FIRST, "arguments": [*case.flag_values, f"--workdir={workdir}"]}
            for workdir, case in jobs_of(folder).items()]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([sys.executable, "-m", "torch_ref.planted", f"--jobs={folder / 'jobs.json'}"],
                          capture_output=True, text=True)
    (folder / "log").write_text(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request) -> pathlib.Path:
    """Where the cases were trained: once, by the first of several test processes."""
    if not hasattr(request.config, "workerinput"):
        run_all(folder := tmp_path_factory.mktemp("faults"))
        return folder
    folder = tmp_path_factory.getbasetemp().parent / "faults"
    try:
        folder.mkdir()
    except FileExistsError:
        while not (folder / "log").exists():
            time.sleep(0.2)
    else:
        run_all(folder)
    return folder


@pytest.fixture(scope="module")
def steps(folder):
    """steps(name): every step of a case, by the name of its folder."""

    @functools.cache
    def read(name: str) -> list[dict[str, np.ndarray]]:
        trace = Reader(folder / name / "trace")
        return [trace.read(number) for number in range(len(trace))]

    return read


def moved(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> set[str]:
    """The kinds of tensors that differ in a bit; NaN is itself."""
    assert ours.keys() == theirs.keys()
    return {name.split("/")[0] for name, array in ours.items() if not np.array_equal(array, theirs[name], True)}


class TestEveryFault:
    def test_all_end_well(self, folder):
        codes = json.loads((folder / "jobs.done.json").read_text())
        assert codes == [0] * len(jobs_of(folder)), (folder / "log").read_text()

    @every_case
    def test_moves_the_trace_from_its_step_on(self, steps, case):
        """Neither earlier nor in tensors that it has nothing to do with; then the run stays another."""
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        assert len(plain) == len(planted) == STEPS
        differences = [moved(*pair) for pair in zip(plain, planted)]
        assert differences[: case.first + 1] == [set()] * case.first + [case.kinds]
        assert all(differences[case.first :])

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_is_undone_afterwards(self, steps, experiment):
        clean = Case("", experiment)
        assert not any(moved(*pair) for pair in zip(steps(f"before-{clean}"), steps(f"after-{clean}")))

    def test_all_are_tested(self):
        assert {case.fault for case in CASES} == set(FAULTS) - {"ranks_summed"}

    def test_each_is_undone_by_a_switch(self):
        """Of parity's catalogue; those that a flag says in full, or that DeepSpeed has by itself, are not planted."""
        by_code = {name for name, switch in SWITCHES.items() if not switch.experiment or switch.patches}
        assert set(FAULTS) - by_code == {"clip_before_unscale", "computed_in_bf16"}
        assert by_code - set(FAULTS) == {"loss_not_scaled", "init_step_counted", "growth_step_halved"}

    @pytest.mark.parametrize("name", sorted(set(FAULTS) - {"ranks_summed"}))
    def test_applies_where_its_switch_does(self, name):
        """But that torch's recurrent kernels know no other format."""
        for case in {case.clean for case in CASES}:
            experiment = command_line.parse(["", *case.flag_values], "fp32")[0]
            out_of_reach = name == "computed_in_bf16" and case.experiment == "lstm"
            assert FAULTS[name].applies(experiment) == (SWITCHES[name].applies(experiment) and not out_of_reach), case

    def test_say_when_they_begin(self):
        begins = {kind: {name for name, fault in FAULTS.items() if fault.begins == kind}
                  for kind in (START, STEP, EVENT)}
        assert begins[START] == {"masters_not_rounded", "not_shuffled", "same_order_every_epoch"}
        assert begins[EVENT] == {"weights_reloaded", "moments_reset"}
        assert len(begins[STEP]) == len(FAULTS) - 5


def pair(steps, name: str, number: int = FIRST):
    """A step without the fault and with it."""
    case = next(case for case in CASES if str(case) == name)
    return steps(f"before-{case.clean}")[number], steps(name)[number]


def wide(step: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float64) for name, array in select(step, kind).items()}


def assert_within(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray], units: float,
                  sizes: dict[str, np.ndarray]) -> None:
    """Within so many roundings to float32 of numbers of these sizes."""
    assert actual.keys() == wanted.keys() != set()
    for name, array in wanted.items():
        assert (abs(actual[name] - array) <= units * UNIT["fp32"] * sizes[name]).all(), name


def assert_updated(step: dict[str, np.ndarray], directions: dict[str, np.ndarray]) -> None:
    """updated = params - lr direction: 16 roundings of the direction, 2 of the difference."""
    rate, params = float(step["learning_rate"]), wide(step, "params")
    wanted = {name: array - rate * directions[name] for name, array in params.items()}
    sizes = {name: 16 * rate * abs(directions[name]) + 2 * abs(array) for name, array in params.items()}
    assert_within(wide(step, "updated"), wanted, 1, sizes)


class TestSchedule:
    @pytest.mark.parametrize(("fault", "shift"), [("learning_rate_early", 1), ("learning_rate_late", -1)])
    def test_rate_of_another_update(self, steps, fault, shift):
        """The table ends with the run's 8 steps, of which 6 are taken."""
        table = [*(float(step["learning_rate"]) for step in steps("before--mlp")), *table_of("mlp")[STEPS:]]
        actual = [float(step["learning_rate"]) for step in steps(f"{fault}-mlp")]
        assert actual == table[:FIRST] + table[FIRST + shift : STEPS + shift]

    def test_skipped_step_advances_the_schedule(self, steps):
        case = next(case for case in CASES if case.fault == "schedule_counts_skipped")
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        table = table_of("mlp")
        assert [bool(step["skipped"]) for step in plain[: FIRST + 1]] == [True, False, False]
        assert [float(step["learning_rate"]) for step in plain[: FIRST + 1]] == [table[0], table[0], table[1]]
        assert [float(step["learning_rate"]) for step in planted[FIRST:]] == table[FIRST:STEPS]

    def test_skipped_step_counts(self, steps):
        case = next(case for case in CASES if case.fault == "skipped_steps_counted")
        assert [int(step["optimizer_step"]) for step in steps(str(case))] == [0, 0, 2, 3, 4, 5]

    @pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
    def test_masters_as_drawn(self, steps, precision, dtype):
        """Rounded, they are the masters of the run without the fault; what computes is the same."""
        plain, planted = pair(steps, f"masters_not_rounded-mlp-precision={precision}", 0)
        for name, array in select(planted, "params").items():
            rounded = torch.from_numpy(array).to(dtype).float().numpy()
            np.testing.assert_array_equal(rounded, plain[f"params/{name}"])
            assert "kernel" not in name or (array != rounded).any()

    @pytest.mark.parametrize("name", ["weights_reloaded-mlp", "weights_reloaded-mlp-precision=fp16"])
    def test_weights_of_the_start(self, steps, name):
        planted = steps(name)
        for key, array in select(planted[FIRST], "params").items():
            np.testing.assert_array_equal(array, planted[0][f"params/{key}"])
        for key, array in select(planted[FIRST], "moments").items():
            np.testing.assert_array_equal(array, planted[FIRST - 1][f"updated_moments/{key}"])

    def test_moments_at_zero(self, steps):
        plain, planted = pair(steps, "moments_reset-mlp")
        assert all(array.any() for array in select(plain, "moments").values())
        assert not any(array.any() for array in select(planted, "moments").values())
        assert_within(wide(planted, "updated_moments/first"),
                      {name: (1 - 0.9) * array for name, array in wide(planted, "grads").items()}, 4,
                      {name: abs(array) for name, array in wide(planted, "grads").items()})

    def test_order_of_the_samples(self, steps):
        ids = [step["batch/ids"].tolist() for step in steps("not_shuffled-mlp")]
        assert ids[0] == ids[4] == list(range(BATCH))
        ids = [step["batch/ids"].tolist() for step in steps("same_order_every_epoch-mlp")]
        assert ids[4:] == ids[:2]

    def test_scale_doubles_a_step_early(self, steps):
        """Without the halved gradient that DeepSpeed's own doubling brings (MISMATCHES D3)."""
        case = next(case for case in CASES if case.fault == "scale_grows_early")
        plain, planted = steps(f"before-{case.clean}"), steps(str(case))
        scales = [[float(step["loss_scale"]) for step in run] for run in (plain, planted)]
        assert scales == [[256] * 4 + [512] * 2, [256] * 3 + [512] * 3]
        for number, share in ((3, 1 / 2), (4, 1)):
            assert_updated(plain[number], {name: share * array for name, array in wide(plain[number], "grads").items()})
        for step in planted[FIRST:]:
            assert_updated(step, wide(step, "grads"))


class TestObjective:
    @pytest.mark.parametrize(("name", "factor", "loss_factor", "number"), [
        ("loss_summed-mlp", BATCH, BATCH, FIRST), ("half_factor-line", 0.5, 0.5, FIRST),
        ("accumulation_not_averaged-mlp-accumulation_steps=2", 2, 1, FIRST)])
    def test_power_of_two(self, steps, name, factor, loss_factor, number):
        plain, planted = pair(steps, name, number)
        assert planted["loss"] == loss_factor * plain["loss"]
        for key, array in select(plain, "grads").items():
            np.testing.assert_array_equal(planted[f"grads/{key}"], np.float32(factor) * array)

    def test_smaller_batch_as_if_full(self, steps):
        """The last of the first epoch; a gradient, a sum of 71 terms of either sign, carries their roundings."""
        plain, planted = pair(steps, "padding_counted-mlp", 3)
        samples = len(plain["batch/ids"])
        assert samples == 71
        assert float(planted["loss"]) == pytest.approx(float(plain["loss"]) * samples / BATCH, rel=4 * UNIT["fp32"])
        largest = max(abs(array).max() for array in wide(plain, "grads").values())
        for key, array in wide(plain, "grads").items():
            np.testing.assert_allclose(planted[f"grads/{key}"], array * samples / BATCH, rtol=0,
                                       atol=samples * UNIT["fp32"] * largest)

    def test_last_part_alone(self, steps):
        """The gradient of the sum is that of both parts; what the first has added to it is gone."""
        plain, planted = pair(steps, "last_part_only-mlp-accumulation_steps=2")
        activations = plain["activations/output"][:, 0]
        weights = np.repeat([0, 1], BATCH // 2)
        targets = data_of("mlp").train_targets[plain["batch/ids"]][:, 0]
        residuals = (1 / (1 + np.exp(-activations.astype(np.float64))) - targets) / BATCH
        for step, used in ((plain, 1), (planted, weights)):
            assert float(step["grads/output/bias"][0]) == pytest.approx(float(np.sum(residuals * used)),
                                                                        abs=BATCH * UNIT["fp32"] / BATCH)

    @pytest.mark.parametrize("flag", ["", "-precision=fp16", "-precision=bf16", "-accumulation_steps=2"])
    def test_gradients_add_up(self, steps, flag):
        """In the format that DeepSpeed keeps them in: one rounding."""
        plain, planted = pair(steps, f"gradients_not_zeroed-mlp{flag}")
        before = steps(f"gradients_not_zeroed-mlp{flag}")[FIRST - 1]
        unit = {"-precision=fp16": 2.0**-11, "-precision=bf16": 2.0**-8}.get(flag, 2.0**-24)
        for key, array in wide(plain, "grads").items():
            wanted = array + before[f"grads/{key}"]
            assert (abs(planted[f"grads/{key}"] - wanted) <= unit * abs(wanted) + 2.0**-25 / 256).all()

    def test_forward_pass_of_the_step_before(self, steps):
        """y = w x + b of the previous step's parameters: three roundings."""
        _, planted = pair(steps, "stale_parameters-line")
        before, inputs = steps("stale_parameters-line")[FIRST - 1], data_of("line").train_inputs[planted["batch/ids"]]
        weight, bias = (float(before[f"params/output/{leaf}"].item()) for leaf in ("kernel", "bias"))
        size = abs(weight * inputs) + abs(bias)
        assert (abs(planted["activations/output"] - (weight * inputs.astype(np.float64) + bias))
                <= 3 * UNIT["fp32"] * size).all()

    def test_divided_by_the_scale_once_more(self, steps):
        """Adam's first moment is b1 m + (1 - b1) g / scale."""
        _, planted = pair(steps, "unscaled_twice-mlp-precision=fp16")
        grads, before = wide(planted, "grads"), wide(planted, "moments/first")
        wanted = {name: 0.9 * before[name] + 0.1 * array / 256 for name, array in grads.items()}
        assert_within(wide(planted, "updated_moments/first"), wanted, 4,
                      {name: abs(before[name]) + abs(array) / 256 for name, array in grads.items()})

    def test_masks_of_the_first_step(self, steps):
        """A unit that is dropped moves no weight behind it: the output kernel's gradient is 0 in the same rows."""
        planted = steps("dropout_mask_reused-mlp")
        assert (planted[FIRST]["batch/ids"] != planted[0]["batch/ids"]).any()
        experiment = experiment_of("mlp")
        masks = [mask_source(experiment.seed, step, 0, BATCH) for step in (0, FIRST)]
        ones = torch.ones(BATCH, 8)
        first, other = (dropout(ones, 0.2, 1, source) for source in masks)
        assert (first != other).any()
        hidden = torch.relu(torch.from_numpy(planted[FIRST]["activations/hidden_1"]))
        output, kernel, bias = (torch.from_numpy(planted[FIRST][name]) for name in (
            "activations/output", "params/output/kernel", "params/output/bias"))
        torch.testing.assert_close(hidden * first @ kernel + bias, output)
        assert not torch.allclose(hidden * other @ kernel + bias, output)

    def test_kept_units_are_not_divided(self, steps):
        _, planted = pair(steps, "dropout_not_divided-mlp")
        source = mask_source(experiment_of("mlp").seed, FIRST, 0, BATCH)
        mask = (dropout(torch.ones(BATCH, 8), 0.2, 1, source) > 0).float()
        hidden = torch.relu(torch.from_numpy(planted["activations/hidden_1"]))
        kernel, bias = (torch.from_numpy(planted[f"params/output/{leaf}"]) for leaf in ("kernel", "bias"))
        torch.testing.assert_close(hidden * mask @ kernel + bias, torch.from_numpy(planted["activations/output"]))

    def test_loss_of_probabilities(self, steps):
        """-log softmax(softmax(z))_t by hand, in float64 from the recorded logits."""
        _, planted = pair(steps, "probabilities_as_logits-transformer")
        logits = planted["activations/output"].astype(np.float64)
        targets = data_of("transformer").train_targets[planted["batch/ids"]]
        wanted = -np.take_along_axis(log_softmax(np.exp(log_softmax(logits))), targets[..., None], -1).mean()
        assert float(planted["loss"]) == pytest.approx(wanted, rel=32 * UNIT["fp32"])


class TestBatchNorm:
    def test_momentum_flipped(self, steps):
        """The batch's share, a tenth, is found from the run without the fault: ten times its rounding."""
        plain, planted = pair(steps, "batch_norm_momentum_flipped-cnn")
        for name, before in wide(plain, "batch_stats").items():
            batch = (plain[f"updated_batch_stats/{name}"] - 0.9 * before) / 0.1
            np.testing.assert_allclose(planted[f"updated_batch_stats/{name}"], 0.1 * before + 0.9 * batch,
                                       rtol=0, atol=40 * UNIT["fp32"] * (abs(batch) + abs(before)).max())

    def test_biased_variance(self, steps):
        """Of 16 images of 8 x 8 in the first layer."""
        plain, planted = pair(steps, "batch_norm_biased_variance-cnn")
        values, name = 16 * 64, "norm_0/var"
        before = plain[f"batch_stats/{name}"].astype(np.float64)
        batch = (plain[f"updated_batch_stats/{name}"] - 0.9 * before) / 0.1
        wanted = 0.9 * before + 0.1 * batch * (values - 1) / values
        np.testing.assert_allclose(planted[f"updated_batch_stats/{name}"], wanted, rtol=8 * UNIT["fp32"])


class TestOptimizer:
    def test_eps_inside_root_of_adam(self, steps):
        _, planted = pair(steps, "eps_inside_root-mlp-adam_eps=0.001")
        first, second = corrected(planted, FIRST + 1)
        assert_updated(planted, {name: first[name] / np.sqrt(second[name] + 1e-3) for name in first})

    def test_eps_inside_root_of_adamw(self, steps):
        _, planted = pair(steps, "eps_inside_root-mlp-optimizer=adamw-weight_decay=0.1-adam_eps=0.001")
        (first, second), params = corrected(planted, FIRST + 1), wide(planted, "params")
        assert_updated(planted, {name: first[name] / np.sqrt(second[name] + 1e-3) + 0.1 * params[name]
                                 for name in first})

    @pytest.mark.parametrize("optimizer", ["rmsprop", "adagrad"])
    def test_eps_inside_root_of_the_gradients_own(self, steps, optimizer):
        _, planted = pair(steps, f"eps_inside_root-mlp-optimizer={optimizer}-{optimizer}_eps=0.001-l2=0.1")
        second, params = wide(planted, "updated_moments/second"), wide(planted, "params")
        assert_updated(planted, {name: (array + 0.1 * params[name]) / np.sqrt(second[name] + 1e-3)
                                 for name, array in wide(planted, "grads").items()})

    def test_without_bias_correction(self, steps):
        _, planted = pair(steps, "bias_correction_missing-mlp-adam_eps=0.001")
        first, second = (wide(planted, f"updated_moments/{kind}") for kind in ("first", "second"))
        assert_updated(planted, {name: first[name] / (np.sqrt(second[name]) + 1e-3) for name in first})

    @pytest.mark.parametrize(("flags", "eps", "is_fused"), [
        ("adam_eps=0.001", 1e-3, True), ("nofused_adam-l2=0.1", 1e-8, False)])
    def test_bias_correction_of_the_next_update(self, steps, flags, eps, is_fused):
        _, planted = pair(steps, f"bias_correction_late-mlp-{flags}")
        first, second = corrected(planted, FIRST + 2, is_fused)
        assert_updated(planted, {name: first[name] / (np.sqrt(second[name]) + eps) for name in first})
        assert int(planted["optimizer_step"]) == FIRST

    def test_decay_without_rate(self, steps):
        plain, planted = pair(steps, "decay_not_times_rate-mlp-optimizer=adamw-weight_decay=0.1-adam_eps=0.001")
        rate, params = float(plain["learning_rate"]), wide(plain, "params")
        wanted = {name: array + (rate - 1) * 0.1 * params[name] for name, array in wide(plain, "updated").items()}
        assert_within(wide(planted, "updated"), wanted, 4, {name: abs(array) for name, array in params.items()})

    @pytest.mark.parametrize(("name", "clip"), [
        ("clip_by_value-line-clip_norm=0.01", lambda g, norm: np.clip(g, -0.01, 0.01)),
        ("clip_by_tensor-line-clip_norm=0.01", lambda g, norm: g / max((np.linalg.norm(g) + 1e-6) / 0.01, 1)),
        ("clip_normalizes-line-clip_norm=100", lambda g, norm: g * 100 / (norm + 1e-6)),
        ("clip_by_value-line-precision=fp16-clip_norm=1", lambda g, norm: np.clip(g, -1, 1)),
        ("clip_before_unscale-line-precision=fp16-clip_norm=1", lambda g, norm: g / max(256 * norm + 1e-6, 1))])
    def test_clipping(self, steps, name, clip):
        """At every step: the recorded gradients are those that are clipped."""
        for step in steps(name)[FIRST:]:
            norm = float(step["grad_norm"])
            assert_updated(step, {key: clip(grad, norm) for key, grad in wide(step, "grads").items()})

    @pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
    def test_masters_in_half_precision(self, steps, precision, dtype):
        plain, planted = pair(steps, f"half_precision_masters-mlp-precision={precision}")
        for name, array in select(plain, "updated").items():
            rounded = torch.from_numpy(array).to(dtype).float().numpy()
            np.testing.assert_array_equal(planted[f"updated/{name}"], rounded)


def corrected(step: dict[str, np.ndarray], updates: int, is_fused: bool = True):
    """Adam's moments after a step, corrected for so many updates; FusedAdam's betas are float32."""
    rounded = np.float32 if is_fused else float
    return ({name: array / (1 - float(rounded(beta)) ** updates)
             for name, array in wide(step, f"updated_moments/{kind}").items()}
            for kind, beta in (("first", 0.9), ("second", 0.999)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def experiment_of(name: str) -> Experiment:
    return command_line.parse(["", *EXPERIMENTS[name]], "fp32")[0]


@functools.cache
def data_of(name: str) -> datasets.Dataset:
    return datasets.load(experiment_of(name))


def table_of(name: str) -> list[float]:
    return schedules.learning_rates(experiment_of(name), 8).astype(float).tolist()

"""Real ds_configs (real/*.json), against what DeepSpeed itself makes of each."""

import json
import pathlib
import sys

import hjson
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jaxnn.experiment import schedules
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.deepspeed import auto, strict
from tests.jaxnn.experiment.flags.deepspeed.entries import fast
from tests.jaxnn.experiment.flags.deepspeed.writing_test import hyperparameters
from torch_ref.optimizers import OPTIMIZERS

FOLDER = pathlib.Path(__file__).with_name("real")
STEPS = 50
SIZES = auto.MICRO, "train_batch_size", "gradient_accumulation_steps"

# File -> the ranks that its sizes are for.
RANKS = {"05": 10, "43": 2, "47": 8, "course_rnn": 2}
# What DeepSpeed refuses -> what the message must say.
REFUSED = {
    "03": "train_batch_size: is missing",
    "13": "curriculum_learning: DeepSpeed 0.19.8 has removed it",
    "17": "zero_optimization.reduce_bucket_size: must be at least 1, got 0",
    "21": "compile.disable: unknown key, which DeepSpeed refuses",
    "33": "scheduler.params.warmup_num_steps: must be at least 1, got 0",
    "35": 'fp16.enabled: must be true or false, got "True,"',
    "55": 'optimizer.type: "OnebitAdam" is unknown to DeepSpeed',
    "57": "compression_training: DeepSpeed 0.19.8 has removed it",
    "59": "elasticity: DeepSpeed 0.19.8 has removed it",
    "65": "optimizer.params.freeze_step: unknown key, which DeepSpeed refuses$",
    "67": "train_micro_batch_size_per_gpu: 64 times .* is not train_batch_size 256",
}
# What DeepSpeed trains and jaxnn does not.
UNSUPPORTED = {
    "01": "fp16.fp16_master_weights_and_grads: true .* moments in fp16",
    "09": 'optimizer.type: "Lamb" is not supported',
    "11": "optimizer.params.bias_correction: false .* 3.16",
    "53": "expert_parallel.enabled: true is not supported",
    "61": "torch_autocast.enabled: true .* loss scaler of its own",
    "69": 'optimizer.type: "Lion" is not supported',
}
WARNED = {
    "05": "max_grad_norm (it clips nothing; it belongs in gradient_clipping)",
    "39": "logging, dataloader_settings",
    "43": "lr_scheduler (it makes no schedule; it belongs in scheduler)",
    "cuda_visible_devices": "cuda_visible_devices",
    "memory_efficient_linear_top": "memory_efficient_linear (it changes nothing",
}
# What DeepSpeed itself says to them.
RAISED = {
    "03": "Either train_batch_size or train_micro_batch_size_per_gpu needs",
    "13": "'curriculum_learning' has been removed",
    "17": "reduce_bucket_size\n.*greater than 0",
    "21": "disable\n.*Extra inputs are not permitted",
    "33": "warmup_num_steps must be a positive integer, got 0",
    "35": "enabled\n.*valid boolean",
    "55": "has no attribute 'OnebitAdam'",
    "57": "compression library has been removed",
    "59": "Elastic training has been removed",
    "65": "unexpected keyword argument 'freeze_step'",
    "67": "256 != 64 [*] 10 [*] 1",
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
ACCEPTED = [name for name in NAMES if name not in REFUSED | UNSUPPORTED]


def text_of(name):
    return (FOLDER / f"{name}.json").read_text()


def flags_of(name):
    return [f"--num_devices={RANKS.get(name, 1)}"]


def as_the_trainer(entries):
    """The entries as transformers' HfTrainerDeepSpeedConfig fills them in."""
    entries = json.loads(json.dumps(entries))
    if any(entries.get(key) == "auto" for key in SIZES):
        micro = entries.get(auto.MICRO, "auto")
        entries[auto.MICRO] = auto.FILLED[auto.MICRO] if micro == "auto" else micro
        for key in SIZES[1:]:
            if entries.get(key) == "auto":
                del entries[key]
    for key in (*auto.FILLED, "scheduler.params.total_num_steps"):
        *blocks, name = key.split(".")
        block = entries
        for part in blocks:
            block = block.get(part, {})
        if block.get(name) == "auto":
            block[name] = auto.FILLED.get(key, STEPS)
    return entries


def rates(entries, optimizer):
    """The rates of DeepSpeed's scheduler over the first steps."""
    from deepspeed.runtime import lr_schedules

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr_schedules.logger, "warning", lambda message: None)
        kind, params = entries["type"], entries["params"]
        scheduler = getattr(lr_schedules, kind)(optimizer, **params)
        for _ in range(STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return found


class TestRealFiles:
    def test_are_all_here(self):
        assert len(NAMES) == 41
        assert {*REFUSED, *UNSUPPORTED, *WARNED, *RANKS} <= set(NAMES)

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_settings_are_deepspeeds(self, read, theirs, name):
        experiment, _ = read(text_of(name), *flags_of(name))
        entries = as_the_trainer(hjson.loads(text_of(name)))
        expected = theirs(entries, RANKS.get(name, 1))
        fp16, bf16 = expected.float16_config, expected.bfloat16_config
        assert experiment.batch_size == expected.train_batch_size
        assert experiment.accumulation_steps == expected.gradient_accumulation_steps
        assert experiment.clip_norm == expected.gradient_clipping
        assert experiment.zero_stage == expected.zero_optimization_stage
        assert (experiment.precision == "fp16") == fp16.enabled
        assert (experiment.precision == "bf16") == bf16.enabled
        assert experiment.initial_scale_power == fp16.initial_scale_power
        assert experiment.loss_scale_window == fp16.loss_scale_window
        assert experiment.hysteresis == fp16.hysteresis
        assert experiment.static_loss_scale == fp16.loss_scale

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_optimizer_and_rates_are_deepspeeds(self, read, build_optimizer, name):
        entries = as_the_trainer(hjson.loads(text_of(name)))
        if "optimizer" not in entries:
            pytest.skip("the script brings its own")
        experiment, _ = read(text_of(name), *flags_of(name))
        params = [torch.nn.Parameter(torch.ones(2, 2))]
        # Its sizes are for several ranks.
        entries = {**entries, "train_batch_size": 1, "gradient_accumulation_steps": 1}
        entries.pop(auto.MICRO, None)
        built = build_optimizer(entries, params)
        ours = OPTIMIZERS[experiment.optimizer](experiment.replace(ds_extra=""), params)
        expected, found = hyperparameters(built), hyperparameters(ours)
        table = np.full(STEPS, built.param_groups[0]["lr"])
        if "scheduler" in entries:
            table = rates(
                entries["scheduler"], torch.optim.SGD(params, built.defaults["lr"])
            )
        assert type(ours) is type(built)
        assert {**found, "lr": 0} == {**expected, "lr": 0}
        np.testing.assert_allclose(
            schedules.learning_rates(experiment, STEPS),
            np.float32(table),
            rtol=np.finfo(np.float32).eps,
            atol=max(table) * 4 * 2.0**-52,
        )

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_one_warning_if_deepspeed_ignores_a_key(self, read, name):
        notes = read(text_of(name), *flags_of(name))[1]
        warned = [note for note in notes if note.startswith("warning: ")]
        assert len(warned) == (name in WARNED)
        assert all(WARNED[name] in line for line in warned)

    @pytest.mark.parametrize("name", REFUSED | UNSUPPORTED)
    def test_one_line_names_file_and_key(self, read, name):
        problem = (REFUSED | UNSUPPORTED)[name]
        with pytest.raises(
            UserError, match=rf"^--ds_config: \S+theirs.json: {problem}"
        ) as error:
            read(text_of(name))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("name", REFUSED)
    def test_deepspeed_refuses_it_too(self, build_optimizer, name):
        entries = as_the_trainer(hjson.loads(text_of(name)))
        params = [torch.nn.Parameter(torch.ones(2, 2))]

        def build():
            build_optimizer(entries, params)
            rates(entries["scheduler"], torch.optim.SGD(params, lr=1.0))

        with pytest.raises(Exception, match=RAISED[name]):
            build()


class TestStrictKeys:
    def test_are_those_of_deepspeeds_models(self):
        for block, model in models().items():
            theirs = {
                name
                for field, info in model.model_fields.items()
                for name in (field, info.alias)
                if name
            }
            ours = {
                key.removeprefix(f"{block}.")
                for key in strict.KINDS
                if key.rpartition(".")[0] == block
            }
            assert ours == theirs, block

    def test_removed_keys_are_deepspeeds(self):
        from deepspeed.runtime import config

        zero = [f"zero_optimization.{k}" for k in config._REMOVED_ZERO_CONFIG_KEYS]
        assert set(strict.REMOVED) == {*config._REMOVED_TOP_LEVEL_CONFIG_KEYS, *zero}


def models():
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.compile.config import CompileConfig
    from deepspeed.monitor import config as monitor
    from deepspeed.runtime import config, precision_config
    from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
    from deepspeed.runtime.zero import leaf_module_config, offload_config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    zero = "zero_optimization"
    return {
        "fp16": precision_config.DeepSpeedFP16Config,
        "bf16": precision_config.DeepSpeedBF16Config,
        zero: DeepSpeedZeroConfig,
        f"{zero}.offload_param": offload_config.DeepSpeedZeroOffloadParamConfig,
        f"{zero}.offload_optimizer": offload_config.DeepSpeedZeroOffloadOptimizerConfig,
        f"{zero}.leaf_module": leaf_module_config.DeepSpeedZeroLeafModuleConfig,
        "compile": CompileConfig,
        "comms_logger": CommsLoggerConfig,
        "tensorboard": monitor.TensorBoardConfig,
        "csv_monitor": monitor.CSVConfig,
        "wandb": monitor.WandbConfig,
        "comet": monitor.CometConfig,
        "hybrid_engine": config.HybridEngineConfig,
        "tensor_parallel": TPTrainingConfig,
        "timers.throughput": DeepSpeedThroughputTimerConfig,
    }


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.just("auto"),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["true", "fp16", "none", "CONFIG_SIZE", "1e-3", "a\nb"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


def keys_of(entries, prefix=()):
    for name, value in entries.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from keys_of(value, (*prefix, name))


@st.composite
def variants(draw):
    """A real file with one to three values replaced, dropped or added."""
    entries = hjson.loads(text_of(draw(st.sampled_from(NAMES))))
    for _ in range(draw(st.integers(1, 3))):
        found = list(keys_of(entries))
        if not found:
            break
        *blocks, name = draw(st.sampled_from(found))
        block = entries
        for part in blocks:
            block = block[part]
        action = draw(st.sampled_from(["replace", "drop", "add"]))
        if action == "drop":
            del block[name]
        else:
            name = name if action == "replace" else draw(st.text(max_size=4))
            block[name] = draw(ODD)
    return entries


def outcome(path, capsys):
    """Exit code and lines on stderr of a program that only parses."""
    codes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prog", f"--ds_config={path}"])
        command_line.run(lambda _: None, "", "fp32", leave=codes.append)
    return codes[0], capsys.readouterr().err.splitlines()


class TestVariants:
    @given(variants())
    @fast
    def test_end_well_or_with_one_line(self, tmp_path, capsys, entries):
        path = tmp_path / "theirs.json"
        path.write_text(json.dumps(entries))
        self.check(path, capsys)

    @given(st.sampled_from(NAMES), st.data())
    @fast
    def test_cut_or_garbled_text(self, tmp_path, capsys, name, data):
        text = text_of(name)
        at = data.draw(st.integers(0, len(text)))
        put = data.draw(st.sampled_from(["", "{{ x }}", '"', "\n", ",", "}", "/*"]))
        rest = text[at:] if data.draw(st.booleans()) else ""
        path = tmp_path / "theirs.json"
        path.write_text(text[:at] + put + rest)
        self.check(path, capsys)

    def check(self, path, capsys):
        code, lines = outcome(path, capsys)
        errors = [line for line in lines if not line.startswith(("note: ", "warning:"))]
        assert code in (0, 2)
        assert len(errors) == (code == 2), lines
        assert all(line.startswith(f"error: --ds_config: {path}: ") for line in errors)

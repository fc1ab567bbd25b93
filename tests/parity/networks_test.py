"""Both stacks for real on every network, every optimizer and some of DeepSpeed's
variants: judged equal."""

import pathlib

import pytest

from tests.parity import recorded

EXPERIMENTS = pathlib.Path("launch/experiments")
STEPS, MANY_STEPS = 4, 20
SERIES = (
    "--sequence_length=10",
    "--num_samples=400",
    "--hidden_sizes=8,8",
    "--dropout_rates=0.2,0",
)
NETWORKS = {
    "mlp, batch norm": ("breast_cancer", "--normalization=batch", "--batch_size=24"),
    "mlp, layer norm": ("breast_cancer", "--normalization=layer", "--activation=gelu"),
    "mlp, residual": (
        "breast_cancer",
        "--residual",
        "--hidden_sizes=16,16,16",
        "--dropout_rates=0.1,0,0",
    ),
    "cnn": ("cnn_digits", "--channels=4,8", "--hidden_sizes=16", "--batch_size=32"),
    "resnet": ("resnet_digits", "--batch_size=16"),
    "rnn": ("rnn_sine", *SERIES),
    "lstm": ("lstm_sine", *SERIES),
    "gru": ("gru_sine", *SERIES),
    "transformer": (
        "transformer_text",
        "--width=16",
        "--num_heads=2",
        "--sequence_length=16",
        "--batch_size=8",
        "--dropout_rates=0.1",
        "--data_path=pyproject.toml",
    ),
    "transformer_encoder": (
        "digits",
        "--model=transformer_encoder",
        "--hidden_sizes=",
        "--width=16",
        "--num_heads=2",
        "--initializer=glorot_uniform",
    ),
}
OPTIMIZERS = {
    "sgd": ("--l2=0.01",),
    "momentum": ("--l2=0.01", "--nodecay_all"),
    "nesterov": ("--clip_norm=0.5",),
    "ema_momentum": (),
    "adam": ("--l2=0.01", "--clip_norm=0.5"),
    "adamw": ("--weight_decay=0.1", "--nodecay_all"),
    "rmsprop": ("--l1=0.001",),
    "adagrad": ("--l2=0.01",),
}
LONGER = ("linear_regression", "digits")
VARIANTS = ("--zero_stage=2", "--nofused_adam", "--optimizer=sgd")
"""In FP16 from DeepSpeed's own scale, at which the first steps overflow."""


def network(name, precision):
    """Flags of a network, from a loss scale at which none overflows: every step has
    gradients to compare."""
    base, *flags = NETWORKS[name]
    return flags_of(base, precision, *flags, "--initial_scale_power=8")


def flags_of(base, precision, *flags, steps=STEPS):
    return (
        f"--flagfile={EXPERIMENTS / base}.flags",
        f"--precision={precision}",
        f"--max_steps={steps}",
        f"--record_steps={steps}",
        *flags,
    )


IN_PRECISIONS = [
    *((name, precision) for name in NETWORKS for precision in ("fp32", "fp16")),
    ("resnet", "bf16"),
    ("lstm", "bf16"),
    ("transformer", "bf16"),
]
CASES = (
    {
        f"{name} {precision}": network(name, precision)
        for name, precision in IN_PRECISIONS
    }
    | {
        optimizer: flags_of("breast_cancer", "fp32", f"--optimizer={optimizer}", *flags)
        for optimizer, flags in OPTIMIZERS.items()
    }
    | {
        f"{name} {precision}": flags_of(name, precision, steps=MANY_STEPS)
        for name in LONGER
        for precision in ("fp32", "fp16", "bf16")
    }
    | {
        flag: flags_of("breast_cancer", "fp16", flag, steps=MANY_STEPS)
        for flag in VARIANTS
    }
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    recordings = recorded.Recorded(tmp_path_factory.mktemp("networks"), CASES)
    yield recordings
    recordings.stop()


def assert_parity(recordings, tmp_path, case, steps=STEPS):
    verdicts = recordings.verdict(case, tmp_path)
    for verdict in verdicts.values():
        assert verdict["first_divergence"] is None
        assert verdict["steps"] == steps
        assert verdict["max_z"] <= verdict["threshold"] == 8
        assert verdict["quantities"]["loss"]["compared"] == steps
        assert verdict["quantities"]["grads"]["compared"] >= STEPS
    assert verdicts["torch"]["max_z"] > 0, (
        "two stacks that agree to the bit were not two stacks"
    )
    return verdicts["torch"]


class TestNetworks:
    @pytest.mark.parametrize(("name", "precision"), IN_PRECISIONS)
    def test_stacks_agree(self, recordings, tmp_path, name, precision):
        verdict = assert_parity(recordings, tmp_path, f"{name} {precision}")
        has_statistics = name in ("mlp, batch norm", "resnet")
        assert (verdict["quantities"]["batch_stats"]["compared"] > 0) == has_statistics


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_stacks_agree(self, recordings, tmp_path, optimizer):
        assert_parity(recordings, tmp_path, optimizer)


class TestDeepSpeed:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    @pytest.mark.parametrize("name", LONGER)
    def test_stacks_agree_for_longer(self, recordings, tmp_path, name, precision):
        assert_parity(recordings, tmp_path, f"{name} {precision}", MANY_STEPS)

    @pytest.mark.parametrize("flag", VARIANTS)
    def test_variants_agree(self, recordings, tmp_path, flag):
        assert_parity(recordings, tmp_path, flag, MANY_STEPS)

"""Both stacks for real on every network and every optimizer, small: a few steps each, judged equal."""

import json
import pathlib

import pytest

EXPERIMENTS = pathlib.Path("launch/experiments")
STEPS = 4
SERIES = ("--sequence_length=10", "--num_samples=400", "--hidden_sizes=8,8", "--dropout_rates=0.2,0")
NETWORKS = {
    "mlp, batch norm": ("breast_cancer", "--normalization=batch", "--batch_size=24"),
    "mlp, layer norm": ("breast_cancer", "--normalization=layer", "--activation=gelu"),
    "cnn": ("cnn_digits", "--channels=4,8", "--hidden_sizes=16", "--batch_size=32"),
    "resnet": ("resnet_digits", "--batch_size=16"),
    "rnn": ("rnn_sine", *SERIES),
    "lstm": ("lstm_sine", *SERIES),
    "gru": ("gru_sine", *SERIES),
    "transformer": ("transformer_text", "--width=16", "--num_heads=2", "--sequence_length=16", "--batch_size=8",
                    "--dropout_rates=0.1"),
    "transformer_encoder": ("digits", "--model=transformer_encoder", "--hidden_sizes=", "--width=16", "--num_heads=2",
                            "--initializer=glorot_uniform"),
}
OPTIMIZERS = {
    "sgd": ("--l2=0.01",), "momentum": ("--l2=0.01", "--nodecay_all"), "nesterov": ("--clip_norm=0.5",),
    "ema_momentum": (), "adam": ("--l2=0.01", "--clip_norm=0.5"), "adamw": ("--weight_decay=0.1", "--nodecay_all"),
    "rmsprop": ("--l1=0.001",), "adagrad": ("--l2=0.01",),
}


def assert_parity(run, tmp_path, name, *flags):
    done = run("parity.run", f"--flagfile={EXPERIMENTS / name}.flags", f"--steps={STEPS}",
               f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["steps"] == STEPS
    assert verdict["max_z"] <= verdict["threshold"] == 8
    assert verdict["quantities"]["loss"]["compared"] == STEPS
    return verdict


class TestNetworks:
    @pytest.mark.parametrize(("name", "precision"), [
        *((name, precision) for name in NETWORKS for precision in ("fp32", "fp16")),
        ("resnet", "bf16"), ("lstm", "bf16"), ("transformer", "bf16")])
    def test_stacks_agree(self, run, tmp_path, name, precision):
        """From a loss scale that none of them overflows at, so that every step has gradients to compare."""
        flags = NETWORKS[name]
        if name == "transformer":
            path = tmp_path / "text.txt"
            path.write_text("\n".join(f"line {number} of a text" for number in range(200)))
            flags = (*flags, f"--data_path={path}")
        verdict = assert_parity(run, tmp_path, *flags, f"--precision={precision}", "--initial_scale_power=8")
        assert verdict["quantities"]["grads"]["compared"] >= STEPS
        has_statistics = name in ("mlp, batch norm", "resnet")
        assert (verdict["quantities"]["batch_stats"]["compared"] > 0) == has_statistics


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_stacks_agree(self, run, tmp_path, optimizer):
        assert_parity(run, tmp_path, "breast_cancer", f"--optimizer={optimizer}", "--precision=fp32",
                      *OPTIMIZERS[optimizer])

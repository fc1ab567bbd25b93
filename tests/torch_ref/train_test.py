"""Bad input and divergence under DeepSpeed: one clear line, exit code 2, what was written stays."""

import re

import pytest

from tests.conftest import NATIVE_FP16

DIVERGE = ("--optimizer=sgd", "--learning_rate=1.5", "--num_samples=64", "--epochs=200", "--noplots")
OVERFLOW = (*DIVERGE, "--precision=fp16", "--initial_scale_power=2", "--hysteresis=1")


def error_of(done) -> str:
    """The error line of a run that ended with exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


class TestBadInput:
    @pytest.mark.parametrize(("flag", "message"), [
        ("--precision=fp64", "error: --precision: DeepSpeed trains fp32, bf16, fp16, not fp64"),
        ("--checkpoint_every=1", "error: --resume, --checkpoint_every: torch_ref.train writes no checkpoints"),
        ("--dataset=nope", "error: --dataset: unknown value 'nope'")])
    def test_names_the_flag(self, run, tmp_path, flag, message):
        assert error_of(run("torch_ref.train", flag, f"--workdir={tmp_path / 'run'}")).startswith(message)
        assert not (tmp_path / "run").exists()

    @pytest.mark.skipif(NATIVE_FP16, reason="this CPU has FP16 instructions")
    def test_native_fp16_where_there_is_none(self, run, tmp_path):
        done = run("torch_ref.train", "--fp16_kernels=native", f"--workdir={tmp_path / 'run'}")
        assert error_of(done).startswith("error: --precision: this CPU has no FP16 instructions")
        assert not (tmp_path / "run").exists()


class TestDivergence:
    """Both stacks stop at the same step."""

    @pytest.mark.parametrize(("flags", "message"), [
        ((*DIVERGE, "--precision=fp32"), r"error: step (\d+): loss is not finite"),
        (OVERFLOW, r"error: step (\d+): .* overflows at the smallest loss scale \(1\)")])
    def test_stops_at_the_step(self, run, tmp_path, flags, message):
        params = tmp_path / "start" / "params.safetensors"
        assert run("jaxnn.train", "--max_steps=1", "--noplots", "--initializer=zeros", "--learning_rate=1e-30",
                   f"--workdir={params.parent}").returncode == 0
        steps = []
        for module in ("jaxnn.train", "torch_ref.train"):
            done = run(module, *flags, f"--init_params={params}", f"--workdir={tmp_path / module}")
            steps.append(int(re.match(message, error_of(done)).group(1)))
            assert "nan" not in (tmp_path / module / "metrics.csv").read_text()
            assert not (tmp_path / module / "summary.json").exists()
        assert steps[0] == steps[1] > 2

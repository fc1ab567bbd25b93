"""The whole command on both stacks: what is equal is judged equal, each planted fault
found where it was planted."""

import json
import pathlib

import pytest

from tests.conftest import needs_native_fp16

EXPERIMENTS = pathlib.Path("launch/experiments")
STEPS = 20


def judged(run, tmp_path, name, *arguments):
    """(Finished process, verdict.json) of one judgement."""
    done = run(
        "parity.run",
        f"--flagfile={EXPERIMENTS / name}.flags",
        f"--steps={STEPS}",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    )
    path = tmp_path / "run" / "verdict.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def assert_page_needs_no_network(path):
    page = path.read_text()
    assert "parity" in page
    assert "http" not in page.replace("http://www.w3.org", "")


class TestParity:
    @pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
    def test_stacks_agree(self, run, tmp_path, precision):
        done, verdict = judged(
            run, tmp_path, "breast_cancer", f"--precision={precision}"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert verdict["verdict"] == "parity"
        assert verdict["max_z"] <= verdict["threshold"] == 8
        assert verdict["steps"] == STEPS
        assert verdict["first_divergence"] is None
        assert verdict["quantities"]["grads"]["compared"] > 0
        assert verdict["quantities"]["moments"]["max_z"] > 0, (
            "two stacks that agree to the bit were not two stacks"
        )
        assert_page_needs_no_network(tmp_path / "run" / "report.html")

    @needs_native_fp16
    def test_native_fp16(self, run, tmp_path):
        done, _ = judged(
            run, tmp_path, "breast_cancer", "--precision=fp16", "--fp16_kernels=native"
        )
        assert done.returncode == 0, done.stdout + done.stderr


class TestDivergence:
    def test_one_weight_nudged(self, run, tmp_path):
        done, verdict = judged(
            run, tmp_path, "breast_cancer", "--torch_module=tests.faults.nudged_weight"
        )
        assert done.returncode == 1
        first = verdict["first_divergence"]
        assert (
            first["recording"],
            first["step"],
            first["quantity"],
            first["tensor"],
        ) == ("torch", 3, "updated", "hidden_0/kernel")

    def test_one_batch_swapped(self, run, tmp_path):
        done, verdict = judged(
            run, tmp_path, "breast_cancer", "--torch_module=tests.faults.swapped_batch"
        )
        assert done.returncode == 1
        assert (
            verdict["first_divergence"]["step"],
            verdict["first_divergence"]["quantity"],
        ) == (2, "batch")

    def test_data_scaled_otherwise(self, run, tmp_path):
        """The data are named, not the layer that reads them."""
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--torch_flags=--preprocess=min_max",
            "--steps=2",
        )
        assert done.returncode == 1
        first = verdict["first_divergence"]
        assert (first["recording"], first["step"], first["quantity"]) == (
            "torch",
            0,
            "inputs",
        )
        assert first["gap"].startswith("the inputs differ: column ")
        assert verdict["quantities"]["targets"]["max_z"] == 0
        assert verdict["recordings"]["jax"]["verdict"] == "parity"

    def test_frozen_parameters_that_torch_trains(self, run, tmp_path):
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--freeze=hidden_1",
            "--torch_flags=--freeze=",
            "--steps=2",
        )
        assert done.returncode == 1
        first = verdict["first_divergence"]
        assert (first["recording"], first["step"]) == ("torch", 0)
        assert first["tensor"].startswith("hidden_1/")
        assert verdict["recordings"]["jax"]["verdict"] == "parity"

    def test_adam_eps_changed(self, run, tmp_path):
        done, verdict = judged(
            run, tmp_path, "breast_cancer", "--torch_flags=--adam_eps=1e-7"
        )
        assert done.returncode == 1
        assert (
            verdict["first_divergence"]["step"],
            verdict["first_divergence"]["quantity"],
        ) == (0, "updated")
        assert verdict["quantities"]["moments"]["max_z"] <= 8, (
            "eps does not touch the moments"
        )
        sentence = "explained by eps: eps is 1e-07, yours 1e-08 (all tensors)"
        assert sentence in " ".join(done.stdout.split())
        assert sentence.split(": ")[1] in verdict["recordings"]["torch"]["measured"]

    def test_adams_beta_as_double(self, run, tmp_path):
        """FusedAdam's float32 betas move the second moment by 1.3e-5 of itself; the
        judge sees that."""
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--precision=fp32",
            "--torch_flags=--nofused_adam",
        )
        assert done.returncode == 1
        assert verdict["first_divergence"]["quantity"] == "moments"


class TestUpstream:
    """DeepSpeed 0.19.8's own faults, found by name."""

    def test_the_scale_that_is_missing_and_the_step_that_is_counted(
        self, run, tmp_path
    ):
        """The seed's ds_config has FP16 and no ZeRO block."""
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--ds_config=launch/ds_configs/fp16_adam.json",
            "--steps=4",
        )
        assert done.returncode == 1
        best, *_ = verdict["recordings"]["torch"]["diagnosis"]
        assert best["name"] == "init_step_counted + loss_not_scaled"
        assert best["explained"]
        assert "pull request 8393" in best["reference"]
        assert "explained by init_step_counted + loss_not_scaled" in " ".join(
            done.stdout.split()
        )
        assert verdict["recordings"]["jax"]["verdict"] == "parity"

    def test_the_step_whose_scale_grows(self, run, tmp_path):
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--optimizer=sgd",
            "--loss_scale_window=3",
            "--steps=6",
            "--initial_scale_power=8",
        )
        assert done.returncode == 1
        first = verdict["first_divergence"]
        assert (first["step"], first["quantity"]) == (3, "updated")
        best, *_ = verdict["recordings"]["torch"]["diagnosis"]
        assert (best["name"], best["explained"]) == ("growth_step_halved", True)
        oracle = verdict["recordings"]["torch"]["oracle"]
        assert oracle["replayed"] < 1e-6 < oracle["recorded"]

    def test_nothing_wrong_under_zero_2_with_two_ranks(self, run, tmp_path):
        """FP16's first scale overflows on one of the ranks alone: the replay of each
        rank's rows sees it."""
        done, verdict = judged(
            run,
            tmp_path,
            "breast_cancer",
            "--num_devices=2",
            "--zero_stage=2",
            "--initializer=lecun_normal",
            "--steps=16",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert verdict["quantities"]["unchanged"]["compared"] > 0


class TestCouldNotJudge:
    def test_a_stack_that_crashes(self, run, tmp_path):
        done, verdict = judged(
            run, tmp_path, "breast_cancer", "--torch_module=tests.faults.crash"
        )
        assert done.returncode == 2
        assert verdict is None
        assert "the torch side fell over" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_flag_that_a_stack_refuses_is_told_in_one_line(self, run, tmp_path):
        done, _ = judged(run, tmp_path, "breast_cancer", "--torch_flags=--adam_b1=2")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: cannot judge: torch_ref.train: --adam_b1: must be less than 1, got "
            "2.0"
        ]

    def test_a_schedule_that_does_not_fit_is_known_before_anything_runs(
        self, run, tmp_path
    ):
        (tmp_path / "ds.json").write_text(
            '{"train_batch_size": 32, "optimizer": {"type": "Adam", "params": {}}, '
            '"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 9}}}'
        )
        done, _ = judged(
            run, tmp_path, "breast_cancer", f"--ds_config={tmp_path / 'ds.json'}"
        )
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(
            f"error: --ds_config: {tmp_path}/ds.json: scheduler.params.total_num_steps"
        )
        assert not (tmp_path / "run").exists()

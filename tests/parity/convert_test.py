"""Tests of parity/convert.py: runs handed over between the stacks, at every ZeRO stage,
to the bit and in training.

`python -m tests.parity.convert_test FOLDER CASE,CASE` is the torch side of the cases,
in one process a rank.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from jaxnn import checkpoint, models, train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, handoff
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.ports import free_port
from jaxnn.optimizers import OPTIMIZERS
from parity import convert
from parity.compare import ContinuedReader
from parity.judging.measure import THRESHOLD
from parity.judging.recording import judge_recording
from parity.judging.replays import Replays
from parity.noise import FLOAT64, Noise, norm
from parity.replay import Replay
from torch_ref import convert as torch_convert
from torch_ref import deepspeed_files, planted
from torch_ref import models as torch_models
from torch_ref import train as torch_train

STEPS, EPOCHS, HANDED = 3, 3, 2
CHECKPOINT = f"step_{STEPS * HANDED:09d}"
"""Steps an epoch, epochs, and those of them before a run is handed over."""
FLAGS = (
    "--flagfile=launch/experiments/breast_cancer.flags",
    "--hidden_sizes=5,3",
    "--normalization=batch",
    "--batch_size=152",
    f"--epochs={EPOCHS}",
    "--learning_rate=0.01",
    "--initial_scale_power=21",
    "--noplots",
)
"""The first steps overflow; sizes that two ranks cannot divide."""
DECAY = ("--nodecay_all", "--l2=0.01")
CASES = {
    "stage0": ("--zero_stage=0",),
    "stage1": (),
    "momentum": ("--zero_stage=0", "--precision=bf16", "--optimizer=momentum"),
    "adagrad": ("--precision=fp32", "--optimizer=adagrad"),
    "stage2": ("--zero_stage=2", "--num_devices=2"),
    "stage3": ("--zero_stage=3", "--num_devices=2", *DECAY),
}
ALONE, TOGETHER = (
    [name for name, flags in CASES.items() if ("--num_devices=2" in flags) == pair]
    for pair in (False, True)
)
RESUMED = ("stage1", "stage3")
STARTS = (
    "params",
    "moments",
    "batch_stats",
    "batch",
    "loss_scale",
    "learning_rate",
    "optimizer_step",
)
"""What a step starts from, in a trace."""


def of(name: str, *more: object) -> Experiment:
    return command_line.parse(
        ["", *FLAGS, f"--name={name}", *CASES[name], *map(str, more)], "fp16"
    )[0]


def main(folder: pathlib.Path, names: Sequence[str]) -> None:
    """The torch side: a run, and one that goes on from its checkpoint as read, filled
    in and saved anew."""
    with planted.process_group_kept():
        for name in names:
            train_torch(
                of(
                    name,
                    f"--workdir={folder / name}",
                    "--record=full",
                    f"--checkpoint_every={HANDED}",
                )
            )
            if name in RESUMED:
                resume(of(name), folder / name, folder / f"{name}-resumed")
            hand_back(of(name), folder / name, folder / f"{name}-again")
            if (folder / f"{name}-jax").exists():
                go_on(of(name), folder / f"{name}-jax", folder / f"{name}-from-jax")


def train_torch(experiment: Experiment) -> None:
    torch_train.main(experiment, None)


def resume(experiment: Experiment, run: pathlib.Path, again: pathlib.Path) -> None:
    """The run as if it had been killed after its checkpoint, resumed."""
    if os.environ["RANK"] == "0":
        shutil.copytree(
            run,
            again,
            ignore=shutil.ignore_patterns("trace", artifacts.PARAMS, artifacts.SUMMARY),
        )
    train_torch(experiment.replace(workdir=str(again), resume=True))


def hand_back(experiment: Experiment, run: pathlib.Path, again: pathlib.Path) -> None:
    """Another checkpoint of the state that the run's holds; every rank reads, writes
    its own file."""
    state = again.with_name(f"{again.name}-{os.environ['RANK']}.safetensors")
    torch_convert.read(experiment, run / "checkpoints" / CHECKPOINT, state)
    prepare(run, again)
    torch_convert.write(experiment, state, again)
    train_torch(experiment.replace(workdir=str(again), resume=True))


def go_on(experiment: Experiment, run: pathlib.Path, again: pathlib.Path) -> None:
    """Trains what JAX began."""
    prepare(run, again)
    torch_convert.write(experiment, run / "state.safetensors", again)
    train_torch(experiment.replace(workdir=str(again), resume=True, record="full"))


def prepare(run: pathlib.Path, again: pathlib.Path) -> None:
    if os.environ["RANK"] == "0":
        again.mkdir()
        artifacts.write_text(
            again / artifacts.METRICS, handoff.metrics_until(run, HANDED)
        )
        shutil.copy(run / artifacts.FLAGS, again)


def jax_run(folder: pathlib.Path, name: str) -> None:
    """A run of jaxnn's, its trace, and the state at its checkpoint, as parity.convert
    makes it."""
    workdir = folder / f"{name}-jax"
    experiment = of(
        name, f"--workdir={workdir}", "--record=full", f"--checkpoint_every={HANDED}"
    )
    train.main(experiment)
    state = checkpoint.restore(workdir, fresh(experiment))
    artifacts.write_arrays(
        workdir / "state.safetensors",
        convert.to_handoff(experiment, jax.tree.map(np.asarray, state)),
    )


def fresh(experiment: Experiment):
    signature = load_dataset(experiment).signature
    state, _ = train.start(
        experiment,
        models.build(experiment, signature),
        OPTIMIZERS[experiment.optimizer](experiment),
        signature,
    )
    return state


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> pathlib.Path:
    """The folder of every case's runs."""
    folder = tmp_path_factory.mktemp("handed")
    jax_run(folder, "stage1")
    running = []
    for names, world_size in ((ALONE, 1), (TOGETHER, 2)):
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "LOCAL_SIZE": str(world_size),
            "WORLD_SIZE": str(world_size),
        }
        running += [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.parity.convert_test",
                    str(folder),
                    ",".join(names),
                ],
                text=True,
                env={
                    **os.environ,
                    **shared,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for rank in range(world_size)
        ]
    said = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)
    return folder


class TestDeepSpeedsFiles:
    """Read back without DeepSpeed, they hold what its own readers said while it
    trained."""

    @pytest.mark.parametrize("name", CASES)
    def test_hold_the_state_to_the_bit(self, runs, name):
        arrays = artifacts.read_arrays(runs / f"{name}-again-0.safetensors", "")
        trace = Reader(runs / name / "trace")
        step = trace.read(STEPS * HANDED)
        for kind in ("params", "moments", "batch_stats"):
            assert select(arrays, kind).keys() == select(step, kind).keys()
            for tensor, array in select(step, kind).items():
                np.testing.assert_array_equal(
                    arrays[f"{kind}/{tensor}"], array, strict=True
                )
        skipped = [
            bool(trace.read(number)["skipped"]) for number in range(STEPS * HANDED)
        ]
        assert arrays["optimizer_step"] == step["optimizer_step"]
        assert (arrays["step"], arrays["updates"]) == (
            len(skipped),
            skipped.count(False),
        )
        assert arrays["loss_scale"] == step["loss_scale"]
        assert any(skipped) == (
            of(name).precision == "fp16" and of(name).zero_stage > 0
        )
        assert arrays["clean_steps"] == (
            0 if of(name).precision != "fp16" else [*skipped[::-1], True].index(True)
        )

    @pytest.mark.parametrize(
        ("name", "again"),
        [
            *((name, "again") for name in CASES),
            *((name, "resumed") for name in RESUMED),
        ],
    )
    def test_resumed_or_filled_in_it_trains_on_to_the_bit(self, runs, name, again):
        for file in (artifacts.PARAMS, artifacts.BATCH_STATS, artifacts.METRICS):
            assert (runs / name / file).read_bytes() == (
                runs / f"{name}-{again}" / file
            ).read_bytes()


class TestState:
    @pytest.mark.parametrize("name", CASES)
    def test_jaxnns_state_holds_all_of_it(self, runs, name):
        arrays = artifacts.read_arrays(runs / f"{name}-again-0.safetensors", "")
        state, like = convert.from_handoff(of(name), arrays), fresh(of(name))
        assert jax.tree.structure(state) == jax.tree.structure(like)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(state)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(like)
        ]
        again = convert.to_handoff(of(name), state)
        assert again.keys() == arrays.keys()
        assert all(
            again[tensor].tobytes() == array.tobytes()
            for tensor, array in arrays.items()
        )


class TestTraining:
    """Half a run of one stack and half of the other are one run, step by step."""

    def test_deepspeed_then_jax(self, runs, run, tmp_path):
        target = tmp_path / "handed"
        done = run(
            "parity.convert",
            f"--from={runs / 'stage1' / 'checkpoints' / CHECKPOINT}",
            f"--to={target}",
        )
        assert done.returncode == 0, done.stderr
        assert (
            "DeepSpeed -> jaxnn\ntensors: 10 params, 20 moments, 4 batch_stats; step "
            "6, updates" in done.stdout
        )
        command = (
            done.stdout.splitlines()[-1].removeprefix("go on with: python -m ").split()
        )
        again = run(*command, "--record=full")
        assert again.returncode == 0, again.stderr
        assert_one_run("stage1", Reader(runs / "stage1" / "trace"), target / "trace")

    def test_jax_then_deepspeed(self, runs):
        assert_one_run(
            "stage1",
            Reader(runs / "stage1-jax" / "trace"),
            runs / "stage1-from-jax" / "trace",
        )

    def test_jaxnns_checkpoint_becomes_deepspeeds(self, runs, capsys, tmp_path):
        target = tmp_path / "deepspeed"
        converted(runs / "stage1-jax", target)
        assert (
            f"python -m torch_ref.train --flagfile={target / artifacts.FLAGS}"
            in capsys.readouterr().out
        )
        assert [path.name for path in tmp_path.iterdir()] == ["deepspeed"]
        torch_convert.read(
            of("stage1"), target / "checkpoints" / CHECKPOINT, tmp_path / "back"
        )
        arrays, expected = (
            artifacts.read_arrays(path, "")
            for path in (tmp_path / "back", runs / "stage1-jax" / "state.safetensors")
        )
        assert arrays.keys() == expected.keys()
        assert all(
            arrays[tensor].tobytes() == array.tobytes()
            for tensor, array in expected.items()
        )


class TestBadInput:
    """One line, and nothing where the run was to be."""

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("", "--from: not given is neither a run"),
            ("nowhere", "--from: nowhere is neither a run"),
        ],
    )
    def test_no_run_there(self, tmp_path, source, message):
        with pytest.raises(UserError, match=message):
            converted(source, tmp_path / "new")

    def test_frozen_parameters(self, tmp_path):
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / artifacts.FLAGS).write_text("--freeze=output/bias\n")
        with pytest.raises(
            UserError, match=r"--from: .*old has frozen parameters \(--freeze=output/bi"
        ):
            converted(tmp_path / "old", tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_it_is_one_line_and_exit_code_2(self, run):
        done = run("parity.convert", "--from=nowhere", "--to=new")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: --from: nowhere is neither a run")
        assert done.stderr.count("\n") == 1

    def test_to_is_not_given_or_there(self, runs, tmp_path):
        with pytest.raises(UserError, match="--to: not given"):
            converted(runs / "stage1", "")
        with pytest.raises(
            UserError, match=r"--to: .* exists already; name a folder that does not"
        ):
            converted(runs / "stage1", tmp_path)

    def test_a_rank_is_missing(self, runs, tmp_path):
        shutil.copytree(runs / "stage3", tmp_path / "run")
        path = (
            tmp_path
            / "run"
            / "checkpoints"
            / CHECKPOINT
            / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        )
        path.unlink()
        with pytest.raises(
            UserError,
            match=f"^--from: {path} of rank 1 is missing; take another checkpoint$",
        ):
            converted(tmp_path / "run", tmp_path / "new")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_of_another_model(self, runs):
        found = deepspeed_files.open_checkpoint(
            runs / "stage0" / "checkpoints" / CHECKPOINT
        )
        experiment = of("stage0", "--hidden_sizes=5,4")
        model = torch_models.build(experiment, load_dataset(experiment).signature)
        with pytest.raises(
            UserError,
            match=r"^hidden_1\.weight is \(3, 5\) in .*, "
            r"\(4, 5\) in the experiment's model",
        ):
            deepspeed_files.check(found, model)

    def test_within_an_epoch(self):
        assert handoff.epochs_done(of("stage1"), 455, 6) == 2
        with pytest.raises(
            UserError,
            match="--from: step 7 is not the end of an epoch, which are at 3, 6",
        ):
            handoff.epochs_done(of("stage1"), 455, 7)

    def test_not_finite(self):
        with pytest.raises(UserError, match="--from: params/a of here is not finite"):
            handoff.require_finite(
                {"params/a": np.float32([1, np.nan])}, pathlib.Path("here")
            )
        handoff.require_finite({"loss_scale": np.float32(np.inf)}, pathlib.Path("here"))

    def test_rows_of_metrics_are_missing(self, tmp_path):
        (tmp_path / artifacts.METRICS).write_text("epoch,step\n1,3\n")
        assert handoff.metrics_until(tmp_path, 1) == "epoch,step\n1,3\n"
        with pytest.raises(
            UserError, match=r"--from: .*metrics\.csv holds 1 of 2 epochs done"
        ):
            handoff.metrics_until(tmp_path, 2)


def converted(source, target) -> None:
    values = command_line.parse_values(
        ["", f"--from={source}", f"--to={target}"], convert.define_flags
    )
    convert.main(values)


def assert_one_run(name: str, whole: Reader, folder: pathlib.Path) -> None:
    """The steps after the handover start where those of the whole run do, and are as
    right as any."""
    experiment, handed = of(name), ContinuedReader(folder, whole)
    data, first = load_dataset(experiment), handed.first
    assert (first, len(handed), len(whole)) == (
        STEPS * HANDED,
        EPOCHS * STEPS,
        EPOCHS * STEPS,
    )
    expected, found = whole.read(first), handed.read(first)
    for tensor in (tensor for tensor in expected if tensor.split("/")[0] in STARTS):
        np.testing.assert_array_equal(
            found[tensor], expected[tensor], strict=True, err_msg=tensor
        )
    assert_within_noise(Replay(experiment, data), first, expected, found)
    judged = judge_recording(Replays(experiment, data), handed, None, THRESHOLD)
    assert judged.verdict.first_divergence is None, judged.verdict


def assert_within_noise(replay: Replay, number: int, expected, found) -> None:
    """Both end the step within 8 noise units of the whole step: gradients in FP16, then
    the update in float32."""
    inputs = replay.inputs(number, expected)

    def step(moved, dtype, wide):
        outputs = replay.gradients(inputs._replace(compute=moved), dtype)
        grads = {
            tensor: array.astype(np.float32)
            for tensor, array in outputs.items()
            if tensor.startswith("grads/")
        }
        return outputs | replay.update(
            inputs._replace(master=inputs.master | grads), wide
        )

    def rounding(moved):
        low, exact = (
            step(moved, replay.compute, np.dtype(np.float32)),
            step(moved, FLOAT64, FLOAT64),
        )
        return {tensor: norm(low[tensor] - exact[tensor]) for tensor in low}

    units = Noise(rounding, inputs.compute, number).units(16)
    judged = [tensor for tensor in units if tensor in expected]
    assert {tensor.split("/")[0] for tensor in judged} >= {
        "loss",
        "grads",
        "updated",
        "updated_moments",
    }
    for tensor in judged:
        ulp = norm(
            np.spacing(
                np.abs(
                    expected[tensor].astype(
                        replay.compute if "/" in tensor else np.float32
                    )
                )
            )
        )
        distance = norm(found[tensor].astype(np.float64) - expected[tensor])
        assert distance <= THRESHOLD * max(units[tensor], ulp), (
            tensor,
            distance,
            units[tensor],
            ulp,
        )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2].split(","))

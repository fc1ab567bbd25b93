"""DeepSpeed's loss scalers at work under ZeRO 1, 2 and 3, beside jaxnn's: FP16 runs
that are made to overflow.

Two free runs drift apart by rounding, so they overflow at the same steps only while no
decision is a close one. By construction none is. The learning rate is so small (though
it changes at every step) that in 60 steps the parameters hardly move: a step's gradient
is that of its batch at the start. Batches are large, so these gradients are alike, and
a loss scale, a power of two, is clearly too large for them or clearly not. The static
scale is no power of two and lies between the gradients of the large batches and those
of the few samples that end an epoch. The seeds are such that no gradient ends up near
FP16's largest number; `test_no_decision_is_a_close_one` holds the runs to it.
"""

import functools
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import models, train, train_step
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import Batch
from parity import stacks
from parity.judging import measure
from parity.judging.replays import Replays
from parity.judging.step import Judge
from parity.quantities import GRADIENTS, RULES, UPDATE
from parity.replay import Replay
from tests.torch_ref import jobs

STEPS = 60
LARGEST = float(np.finfo(np.float16).max)
FLAGS = (
    "--dataset=breast_cancer",
    "--preprocess=standardize",
    "--model=mlp",
    "--hidden_sizes=16",
    "--activation=tanh",
    "--loss=binary_cross_entropy",
    "--precision=fp16",
    "--learning_rate=1e-4",
    "--schedule=warmup_lr",
    "--warmup_type=linear",
    "--warmup_steps=1000",
    "--epochs=1000",
    f"--max_steps={STEPS}",
    f"--record_steps={STEPS}",
    "--noplots",
)
DYNAMIC = ("--batch_size=128", "--seed=1", "--initial_scale_power=24")
CASES = {
    "zero_1": (*DYNAMIC, "--zero_stage=1", "--loss_scale_window=5", "--hysteresis=2"),
    "zero_3": (
        *DYNAMIC,
        "--zero_stage=3",
        "--loss_scale_window=4",
        "--hysteresis=3",
        "--consecutive_hysteresis",
    ),
    "zero_2_static": (
        "--batch_size=227",
        "--seed=2",
        "--zero_stage=2",
        "--static_loss_scale=167000",
    ),
}
SPOILED = dict.fromkeys(
    ("infinite_loss", "nan_loss"),
    ("--zero_stage=2", "--initial_scale_power=3", "--hysteresis=2"),
)
"""These start from parameters whose loss is not finite."""


class Recording(NamedTuple):
    """A run of both stacks from the same parameters.

    Attributes:
      experiment: what ran.
      jax: the trace of jaxnn.train.
      torch: the trace of torch_ref.train.
      errors: what each ended with, jaxnn's first, empty of a run that went well.
    """

    experiment: Experiment
    jax: Reader
    torch: Reader
    errors: tuple[str, str]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Name -> Recording. One process of torch_ref trains every case, while jaxnn.train
    does in this one."""
    folder, cases = tmp_path_factory.mktemp("loss_scale"), {**CASES, **SPOILED}
    experiments = {name: parse(folder / name, flags) for name, flags in cases.items()}
    for name, experiment in experiments.items():
        write_initial(experiment, folder / name)
    torch = jobs.start(
        [
            jobs.job(arguments(folder / name, flags, "full"), folder / f"{name}_torch")
            for name, flags in cases.items()
        ],
        folder,
    )
    ours = [error_of(experiment) for experiment in experiments.values()]
    torch.wait()
    codes, log = (
        json.loads((folder / "jobs.done.json").read_text()),
        (folder / "log").read_text(),
    )
    assert codes == [2 if error else 0 for error in ours], log
    return {
        name: Recording(
            experiment,
            Reader(folder / f"{name}_jax" / "trace"),
            Reader(folder / f"{name}_torch" / "trace"),
            (ours[number], error_of_job(number, log)),
        )
        for number, (name, experiment) in enumerate(experiments.items())
    }


def arguments(path: pathlib.Path, flags: tuple[str, ...], level: str) -> list[str]:
    """The flags of a run that starts from the case's parameters."""
    return [*FLAGS, *flags, f"--init_params={path}.safetensors", f"--record={level}"]


def parse(path: pathlib.Path, flags: tuple[str, ...]) -> Experiment:
    """The experiment as jaxnn.train runs it."""
    return command_line.parse(
        ["", *arguments(path, flags, "losses"), f"--workdir={path}_jax"], "fp16"
    )[0]


def write_initial(experiment: Experiment, path: pathlib.Path) -> None:
    """Writes the parameters that both stacks start from."""
    fresh = experiment.replace(init_params="")
    initial = stacks.initial_params(fresh, load_dataset(fresh))
    artifacts.write_params(
        pathlib.Path(f"{path}.safetensors"), spoil(path.name, initial)
    )


def spoil(name: str, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An output above 65504 is infinite in FP16; so are weights of 10^5, which of
    either sign add up to a NaN."""
    bias, kernel = {
        "infinite_loss": (np.full(1, 65504), np.full((16, 1), 1000)),
        "nan_loss": (np.zeros(1), np.tile([[1e5], [-1e5]], (8, 1))),
    }.get(name, (params["output/bias"], params["output/kernel"]))
    return params | {
        "output/bias": bias.astype(np.float32),
        "output/kernel": kernel.astype(np.float32),
    }


def error_of(experiment: Experiment) -> str:
    """Trains in JAX; the error that it ended with."""
    try:
        train.main(experiment)
    except UserError as error:
        return str(error)
    return ""


def error_of_job(number: int, log: str) -> str:
    """The error that torch_ref's run ended with."""
    begin = f"error: job {number}: "
    return next(
        (
            line.removeprefix(begin)
            for line in log.splitlines()
            if line.startswith(begin)
        ),
        "",
    )


def series(trace: Reader, name: str) -> np.ndarray:
    """One scalar of every step."""
    return np.array([trace.read(number)[name] for number in range(len(trace))])


@functools.cache
def replays_of(experiment: Experiment) -> Replays:
    """The judge's replays, compiled once per experiment."""
    return Replays(experiment, load_dataset(experiment))


def replay_of(experiment: Experiment) -> Replay:
    """The judge's replay of what the flags say."""
    return replays_of(experiment).under(())


def judge_of(recording: Recording) -> Judge:
    """The judge of what DeepSpeed did."""
    return Judge(
        replays_of(recording.experiment), recording.torch, None, measure.THRESHOLD
    )


every_case = pytest.mark.parametrize("name", CASES)
every_dynamic_case = pytest.mark.parametrize("name", ["zero_1", "zero_3"])


class TestFreeRuns:
    """Each stack on its own, from the same parameters."""

    @every_case
    @pytest.mark.parametrize(
        "quantity",
        ["batch/ids", "loss_scale", "skipped", "learning_rate", "optimizer_step"],
    )
    def test_traces_are_equal_to_the_bit(self, recordings, name, quantity):
        ours, theirs = recordings[name].jax, recordings[name].torch
        assert len(ours) == len(theirs) == STEPS
        for number in range(STEPS):
            np.testing.assert_array_equal(
                ours.read(number)[quantity], theirs.read(number)[quantity], strict=True
            )

    @every_case
    def test_no_decision_is_a_close_one(self, recordings, name):
        """Largest scaled gradient in float64 against FP16's largest number, at least a
        tenth away on either side.

        The two runs' gradients differ by some roundings of FP16, a few thousandths at
        most.
        """
        recording = recordings[name]
        replay = replay_of(recording.experiment)
        for number in range(STEPS):
            step = recording.torch.read(number)
            gradients = select(
                replay.gradients(replay.inputs(number, step), np.dtype(np.float64)),
                "grads",
            )
            largest = (
                max(np.abs(gradient).max() for gradient in gradients.values())
                * step["loss_scale"]
            )
            assert (
                largest > 1.1 * LARGEST if step["skipped"] else largest < LARGEST / 1.1
            )

    @every_dynamic_case
    def test_the_scale_falls_and_rises_and_skips_hold_the_schedule(
        self, recordings, name
    ):
        trace = recordings[name].torch
        scales, skipped, rates = (
            series(trace, key) for key in ("loss_scale", "skipped", "learning_rate")
        )
        factors = scales[1:] / scales[:-1]
        assert set(factors) == {0.5, 1, 2}
        assert skipped[:-1][factors == 0.5].all()
        assert not skipped[:-1][factors == 2].any()
        assert 8 <= skipped.sum() <= STEPS - 20
        taken = rates[~skipped]
        assert (
            np.diff(taken[1:]) > 0
        ).all()  # the schedule takes its first two steps at the minimum
        np.testing.assert_array_equal(
            rates, taken[np.minimum(np.cumsum(~skipped) - ~skipped, len(taken) - 1)]
        )

    def test_a_static_scale_stays_and_overflows_only_skip(self, recordings):
        trace = recordings["zero_2_static"].torch
        skipped = series(trace, "skipped")
        assert set(series(trace, "loss_scale")) == {np.float32(167000)}
        assert 15 <= skipped.sum() <= STEPS - 15
        assert series(trace, "optimizer_step")[-1] == (~skipped[:-1]).sum()


class TestReplay:
    """Each step of DeepSpeed's, decided once more in JAX from DeepSpeed's own recorded
    state."""

    @every_case
    def test_takes_the_same_decision_at_every_step(self, recordings, name):
        judge = judge_of(recordings[name])
        for number in range(STEPS):
            decision, *_ = judge.part(GRADIENTS, number)
            assert (decision.quantity, decision.z) == ("skipped", 0)
            assert all(
                m.z == 0
                for m in judge.part(UPDATE, number)
                if m.quantity == "unchanged"
            )

    @every_case
    def test_the_rules_give_every_scale_learning_rate_and_counter(
        self, recordings, name
    ):
        judge = judge_of(recordings[name])
        assert all(
            m.z == 0 for number in range(STEPS) for m in judge.part(RULES, number)
        )

    @every_dynamic_case
    def test_growth_steps_are_where_deepspeed_halves_the_gradient(
        self, recordings, name
    ):
        """It unscales by the scale of the coming step: the first moment takes in g / 2
        (MISMATCHES D3).

        FusedAdam's moment is b1 m + (1 - b1) g, b1 in float32: three roundings, each at
        most eps / 2 of the two terms' sizes together.
        """
        trace, growths = recordings[name].torch, 0
        scales, eps, b1 = (
            series(trace, "loss_scale"),
            np.finfo(np.float32).eps,
            np.float64(np.float32(0.9)),
        )
        for number in np.flatnonzero(~series(trace, "skipped"))[:-1]:
            step = trace.read(number)
            factor = scales[number] / scales[number + 1]
            growths += factor == 0.5
            for tensor, gradient in select(step, "grads").items():
                old, new = (
                    np.float64(step[f"{kind}/first/{tensor}"])
                    for kind in ("moments", "updated_moments")
                )
                kept, added = b1 * old, (1 - b1) * factor * np.float64(gradient)
                assert (
                    np.abs(new - kept - added)
                    <= 1.5 * eps * (np.abs(kept) + np.abs(added))
                ).all()
        assert growths >= 1


class TestWhatOverflows:
    """DeepSpeed looks at the FP16 gradients after averaging over the ranks, at nothing
    else; so does jaxnn."""

    def test_an_infinite_loss_with_finite_gradients_is_no_overflow(self, recordings):
        """sigmoid(inf) - t is finite: the step is taken, and the loss ends the run."""
        recording = recordings["infinite_loss"]
        for trace in (recording.jax, recording.torch):
            assert not np.isfinite(trace.read(0)["loss"])
            assert not trace.read(0)["skipped"]
        assert all(
            np.isfinite(gradient).all()
            for gradient in select(recording.torch.read(0), "grads").values()
        )
        assert recording.errors[0] == recording.errors[1]
        assert recording.errors[0].startswith("step 0: loss is not finite")

    def test_a_loss_that_is_nan_is_skipped_until_the_scale_is_at_its_smallest(
        self, recordings
    ):
        """One hysteresis, then 8, 4, 2 and 1; the next overflow ends the run."""
        recording = recordings["nan_loss"]
        for trace in (recording.jax, recording.torch):
            assert np.isnan(series(trace, "loss")).all()
            assert series(trace, "skipped").all()
            np.testing.assert_array_equal(series(trace, "loss_scale")[:4], [8, 8, 4, 2])
        for error in recording.errors:
            assert error.startswith("step 4: ")
            assert "overflows at the smallest loss scale (1)" in error

    @pytest.mark.parametrize(
        ("scale", "overflows"), [(2.0**14, False), (2.0**15, True)]
    )
    def test_the_gradient_of_one_ranks_own_mean_overflows(self, scale, overflows):
        """Two ranks of one sample each: gradients 3 and -3 of their means average to 0,
        yet 3 * 2^15 is infinite."""
        experiment = Experiment(precision="fp16", batch_size=2)
        gradients = functools.partial(
            train_step.gradients,
            experiment,
            models.build(experiment, Signature((1,), 1)),
            axis_name="ranks",
        )
        params = {
            "output": {
                "kernel": jnp.zeros((1, 1), jnp.float16),
                "bias": jnp.zeros(1, jnp.float16),
            }
        }
        batch = Batch(
            jnp.ones((2, 1, 1), jnp.float16),
            jnp.float32([[[1.5]], [[-1.5]]]),
            jnp.ones((2, 1)),
        )
        _, grads, _ = jax.vmap(
            lambda batch: gradients(params, {}, batch, 0, jnp.float32(scale)),
            axis_name="ranks",
        )(batch)
        with np.errstate(over="ignore", invalid="ignore"):
            local = np.float16([3 * scale, -3 * scale])
            averaged = np.sum(
                local / np.float16(2), dtype=np.float16
            )  # DeepSpeed's: divided, then summed, in FP16
        assert np.isfinite(averaged) != overflows
        for gradient in jax.tree.leaves(grads):
            np.testing.assert_array_equal(
                gradient.ravel(), np.repeat(averaged, 2), strict=True
            )

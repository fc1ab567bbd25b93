"""Trains one experiment in both stacks and judges whether they compute the same thing.

    python -m parity.run --flagfile=launch/experiments/breast_cancer.flags --steps=50

Both start from the same parameters and record every step. Each step that DeepSpeed took
is then replayed in JAX from DeepSpeed's own state, and measured in units of rounding
noise; so is each step that jaxnn.train took. Exit code 0: parity; 1: divergence; 2:
could not judge.
"""

import json
import pathlib
import time

import jax
import numpy as np
from absl import flags
from rich.console import Console

from jaxnn import models, train, train_step
from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader, flatten
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from parity import stacks
from parity.free import judge_ends
from parity.judging import diagnose, measure
from parity.judging.measure import COULD_NOT_JUDGE, DIVERGENCE, PARITY
from parity.judging.recording import Judgement, judge_recording
from parity.judging.step import THOROUGH, ULPS_FIRST, Replays, order
from parity.report import page, published_score, terminal

CONTENTS = (
    artifacts.FLAGS,
    "initial.safetensors",
    "jax",
    "torch",
    "verdict.json",
    "report.html",
    "jax.log",
    "torch.log",
)
REPLAY, FREE = "replay", "free"
PACKAGES = ("jax", "flax", "optax", "torch", "deepspeed", "numpy")


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Initial parameters -> both stacks -> verdict."""
    if experiment.resume or experiment.checkpoint_every:
        raise UserError(
            "--resume, --checkpoint_every: a judgement starts afresh; leave them out"
        )
    if experiment.coordinator_address or experiment.distributed:
        raise UserError(
            "--coordinator_address, --distributed: both stacks are judged on this "
            "host; leave them out"
        )
    experiment = experiment.replace(
        num_devices=max(experiment.num_devices, 1)
    )  # in both stacks, whatever is here
    train.configure(experiment)
    data = load_dataset(experiment)
    initial = initial_params(experiment, data)
    workdir = artifacts.create_workdir(experiment, "parity", CONTENTS)
    artifacts.write_params(workdir / "initial.safetensors", initial)
    modules = {"jax": values["jax_module"].value, "torch": values["torch_module"].value}
    torch_flags, threshold = values["torch_flags"].value, values["threshold"].value
    if values["mode"].value == FREE:
        is_same = judge_ends.main(
            experiment,
            data,
            initial,
            workdir,
            modules,
            torch_flags,
            Console(),
            threshold,
        )
    else:
        steps = min(
            values["steps"].value, sum(batches.plan(experiment, len(data.train_inputs)))
        )
        is_same = judge_steps(
            experiment, data, initial, workdir, modules, torch_flags, steps, threshold
        )
    return PARITY if is_same else DIVERGENCE


def judge_steps(
    experiment: Experiment,
    data: Dataset,
    initial: dict[str, np.ndarray],
    workdir: pathlib.Path,
    modules: dict[str, str],
    torch_flags: list[str],
    steps: int,
    threshold: float,
) -> bool:
    """Records steps of both stacks, replays and judges them; prints and writes the
    verdict, whether it is parity."""
    console, title, start = (
        Console(),
        f"{experiment.name} {experiment.precision}",
        time.perf_counter(),
    )
    console.print(
        f"{title}: recording {steps} steps in both stacks",
        highlight=False,
        soft_wrap=True,
    )
    traces = stacks.record(experiment, steps, workdir, modules, torch_flags)
    recorded = time.perf_counter()
    judgements = judge_traces(experiment, data, traces, initial, threshold)
    seconds = {"recording": recorded - start, "judging": time.perf_counter() - recorded}
    terminal.print_verdict(
        {stack: judged.verdict for stack, judged in judgements.items()}, title, console
    )
    for stack, judged in judgements.items():
        for sentence in judged.sentences(stack):
            console.print(f"{stack}: {sentence}", highlight=False, soft_wrap=True)
    write_verdict(workdir, experiment, judgements, seconds)
    write_page(workdir, experiment, judgements, seconds, order(traces["torch"]))
    console.print(
        f"seconds: recording {seconds['recording']:.1f}, judging "
        f"{seconds['judging']:.1f}; files: {workdir}",
        highlight=False,
        soft_wrap=True,
    )
    return not any(judged.verdict["first_divergence"] for judged in judgements.values())


def initial_params(experiment: Experiment, data: Dataset) -> dict[str, np.ndarray]:
    """The flat float32 parameters that both stacks start from: those of
    `--init_params`, or fresh."""
    model, signature = models.build(experiment, data.signature), data.signature
    if experiment.init_params:
        params = train.read_initial_params(experiment, model, signature)
    else:
        params = jax.jit(
            lambda seed: train_step.initial_variables(model, seed, signature)["params"]
        )(experiment.seed)
    return {name: np.asarray(array) for name, array in flatten(params).items()}


def judge_traces(
    experiment: Experiment,
    data: Dataset,
    traces: dict[str, Reader],
    initial: dict[str, np.ndarray],
    threshold: float,
) -> dict[str, Judgement]:
    """The judgement of each stack's recording, torch's first.

    jaxnn's is close to its replay: where an ulp is wide enough no noise is drawn.
    """
    replays = Replays(experiment, data, max(experiment.num_devices, 1))
    return {
        stack: judge_recording(replays, traces[stack], initial, threshold, rounds)
        for stack, rounds in (("torch", THOROUGH), ("jax", ULPS_FIRST))
    }


def write_verdict(
    workdir: pathlib.Path,
    experiment: Experiment,
    judgements: dict[str, Judgement],
    seconds: dict[str, float],
) -> None:
    """Writes verdict.json: the whole judgement's verdict on top, each recording's under
    `recordings`."""
    verdicts = {stack: judged.verdict for stack, judged in judgements.items()}
    first = page.first_divergence(verdicts)
    whole = {
        "experiment": experiment.name,
        "precision": experiment.precision,
        "verdict": "divergence" if first else "parity",
        "max_z": max(v["max_z"] for v in verdicts.values()),
        "threshold": verdicts["torch"]["threshold"],
        "steps": verdicts["torch"]["steps"],
        "first_divergence": first,
        "quantities": verdicts["torch"]["quantities"],
        "recordings": {stack: judged.as_json() for stack, judged in judgements.items()},
        "seconds": seconds,
    }
    artifacts.write_text(workdir / "verdict.json", json.dumps(whole, indent=2) + "\n")


def write_page(
    workdir: pathlib.Path,
    experiment: Experiment,
    judgements: dict[str, Judgement],
    seconds: dict[str, float],
    tensors: list[str],
) -> None:
    """Writes report.html."""
    verdicts = {stack: judged.with_vote(stack) for stack, judged in judgements.items()}
    first = page.first_divergence(verdicts)
    facts = {
        "seconds": {name: f"{value:.1f}" for name, value in seconds.items()},
        "versions": run_log.versions(PACKAGES),
        "flags": options.to_flagfile(experiment).splitlines(),
    }
    page.write(
        workdir / "report.html",
        f"{experiment.name} {experiment.precision}",
        verdicts,
        {stack: judged.measurements for stack, judged in judgements.items()},
        diagnose.as_json(judgements[first["recording"]].explanations)
        if first
        else None,
        tensors,
        facts,
        published_score.read(),
    )


def define_flags(values: flags.FlagValues) -> None:
    """What the judge takes beyond the experiment."""
    flags.DEFINE_integer(
        "steps",
        50,
        "Optimizer steps to record and judge.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "mode",
        REPLAY,
        (REPLAY, FREE),
        "replay: each step from the recorded state; free: both stacks to "
        "the end, against JAX runs that start an ulp apart.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "threshold",
        measure.THRESHOLD,
        "Largest z that passes, in noise units.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "jax_module",
        "jaxnn.train",
        "Module that records the JAX side.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "torch_module",
        "torch_ref.train",
        "Module that records the torch side; it is given every experiment flag.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "torch_flags",
        [],
        "A flag for the torch side alone, e.g. --torch_flags=--adam_eps=1e-6; "
        "repeatable.",
        flag_values=values,
    )


if __name__ == "__main__":
    command_line.run(
        main,
        __doc__,
        default_precision="fp16",
        define_more=define_flags,
        crash_status=COULD_NOT_JUDGE,
    )

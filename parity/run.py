"""Trains one experiment in both stacks and judges whether they compute the same thing.

    python -m parity.run --flagfile=launch/experiments/breast_cancer.flags --steps=50

Both start from the same parameters and record every step. Each step that DeepSpeed took
is then replayed in JAX from DeepSpeed's own state, and measured in units of rounding
noise; so is each step that jaxnn.train took. Exit code 0: parity; 1: divergence;
2: could not judge.
"""

import json
import pathlib
import time
from collections.abc import Sequence

import numpy as np
from absl import flags
from rich.console import Console

from jaxnn import train
from jaxnn.experiment import own_model
from jaxnn.experiment.catalogue import is_own
from jaxnn.experiment.data import batches
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts, locks
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags import command_line, options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import run_log
from jaxnn.experiment.results.console import table_console
from parity import rules, stacks
from parity.free import judge_ends
from parity.judging.measure import THRESHOLD, z_as_json
from parity.judging.recording import Judgement, judge_recording
from parity.judging.replays import Replays
from parity.judging.rounds import ULPS_FIRST
from parity.judging.verdict import COULD_NOT_JUDGE, DIVERGENCE, PARITY
from parity.report import page, published_score, terminal
from parity.report.why_section import first_diverging
from parity.stacks import INITIAL_PARAMS
from parity.unseen import unseen

VERDICT = "verdict.json"
PAGE = "report.html"
CONTENTS = (
    artifacts.FLAGS,
    artifacts.MODEL,
    INITIAL_PARAMS,
    "jax",
    "torch",
    VERDICT,
    PAGE,
    "jax.log",
    "torch.log",
)
"""Everything that a judgement leaves in its workdir."""
REPLAY = "replay"
FREE = "free"
PACKAGES = ("jax", "flax", "optax", "torch", "deepspeed", "numpy")


@train.settings_put_back()
@locks.released()
def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Flags -> initial parameters -> both stacks -> verdict; returns the exit code."""
    refuse_resumed_and_distributed(experiment)
    if is_own(experiment.model):
        # torch's half is loaded in another process; that it is there is known now.
        own_model.load(experiment.model, own_model.TORCH)
    # As many devices in both stacks, whatever is here.
    experiment = experiment.replace(num_devices=max(experiment.num_devices, 1))
    stacks.share_device()
    train.configure(experiment)
    data = load_dataset(experiment)
    judged = _judged(experiment, values, len(data.train_inputs))
    # Bad input ends here, and not in two processes.
    rules.learning_rates(judged, len(data.train_inputs))
    initial = stacks.initial_params(experiment, data)
    workdir = artifacts.create_workdir(experiment, "parity", CONTENTS)
    artifacts.write_params(workdir / INITIAL_PARAMS, initial)
    modules = {"jax": values.jax_module, "torch": values.torch_module}
    torch_flags = values.torch_flags
    threshold = values.threshold
    if values.mode == FREE:
        is_same = judge_ends.main(
            experiment,
            data,
            initial,
            workdir,
            modules,
            torch_flags,
            table_console(),
            threshold,
        )
    else:
        is_same = judge_steps(
            judged, data, initial, workdir, modules, torch_flags, threshold
        )
    return PARITY if is_same else DIVERGENCE


def _judged(
    experiment: Experiment, values: flags.FlagValues, samples: int
) -> Experiment:
    """Returns the experiment as far as it is judged."""
    if values.mode == FREE:
        return experiment
    # What lies behind the judged steps, as the end of a schedule, is not their affair.
    steps = min(values.steps, sum(batches.plan(experiment, samples)))
    return experiment.replace(max_steps=steps)


def refuse_resumed_and_distributed(experiment: Experiment) -> None:
    """Raises UserError on flags that make no sense in a judgement."""
    if experiment.resume or experiment.checkpoint_every:
        raise UserError(
            "--resume, --checkpoint_every: a judgement starts afresh; leave them out"
        )
    if experiment.coordinator_address or experiment.distributed:
        raise UserError(
            "--coordinator_address, --distributed: both stacks are judged on this "
            "host; leave them out"
        )


def judge_steps(
    experiment: Experiment,
    data: Dataset,
    initial: dict[str, np.ndarray],
    workdir: pathlib.Path,
    modules: dict[str, str],
    torch_flags: list[str],
    threshold: float,
) -> bool:
    """Records both stacks, judges each step, prints and writes what was found.

    Args:
      experiment: what is trained; `max_steps` is the number of steps to record.
      data: its data set.
      initial: flat parameters that both stacks start from.
      workdir: folder of the judgement.
      modules: stack -> program that records it.
      torch_flags: flags for the torch side alone.
      threshold: largest z that passes.

    Returns:
      True at parity.
    """
    console = table_console()
    steps = experiment.max_steps
    title = f"{experiment.name} {experiment.precision}"
    _say(console, f"{title}: recording {steps} steps in both stacks")
    start = time.perf_counter()
    traces = stacks.record(experiment, steps, workdir, modules, torch_flags)
    recorded = time.perf_counter()
    judgements = judge_traces(experiment, data, traces, initial, threshold)
    seconds = {
        "recording": recorded - start,
        "judging": time.perf_counter() - recorded,
    }
    terminal.print_judgements(judgements, title, console)
    untested = list(unseen(experiment, len(data.train_inputs), steps))
    write_verdict(workdir, experiment, judgements, seconds, untested)
    write_page(workdir, experiment, judgements, seconds, untested)
    _say(
        console,
        f"seconds: recording {seconds['recording']:.1f}, judging "
        f"{seconds['judging']:.1f}; files: {workdir}",
    )
    return all(judged.verdict.is_parity for judged in judgements.values())


def judge_traces(
    experiment: Experiment,
    data: Dataset,
    traces: dict[str, Reader],
    initial: dict[str, np.ndarray],
    threshold: float,
) -> dict[str, Judgement]:
    """Returns the judgement of each stack's recording, torch's first."""
    replays = Replays(experiment, data, max(experiment.num_devices, 1))
    torch = judge_recording(replays, traces["torch"], initial, threshold)
    # jaxnn's recording is close to its replay: where an ulp is wide enough, no noise
    # needs to be drawn. Where torch's diverges that is the verdict, whatever jaxnn's
    # can say.
    jax = judge_recording(
        replays,
        traces["jax"],
        initial,
        threshold,
        ULPS_FIRST,
        must_learn=torch.verdict.is_parity,
    )
    return {"torch": torch, "jax": jax}


def write_verdict(
    workdir: pathlib.Path,
    experiment: Experiment,
    judgements: dict[str, Judgement],
    seconds: dict[str, float],
    untested: Sequence[str],
) -> None:
    """Writes verdict.json: the whole on top, each recording under `recordings`."""
    recordings = {stack: judged.as_json() for stack, judged in judgements.items()}
    name = first_diverging(judgements)
    first = None
    if name is not None:
        first = {"recording": name, **recordings[name]["first_divergence"]}
    verdicts = [judged.verdict for judged in judgements.values()]
    whole = {
        "experiment": experiment.name,
        "precision": experiment.precision,
        "verdict": "divergence" if first else "parity",
        "max_z": z_as_json(max(verdict.max_z for verdict in verdicts)),
        "threshold": recordings["torch"]["threshold"],
        "steps": recordings["torch"]["steps"],
        "first_divergence": first,
        "quantities": recordings["torch"]["quantities"],
        "recordings": recordings,
        "not_seen": untested,
        "seconds": seconds,
    }
    artifacts.write_text(workdir / VERDICT, json.dumps(whole, indent=2) + "\n")


def write_page(
    workdir: pathlib.Path,
    experiment: Experiment,
    judgements: dict[str, Judgement],
    seconds: dict[str, float],
    untested: Sequence[str],
) -> None:
    """Writes report.html."""
    facts = {
        "not seen": untested,
        "seconds": {name: f"{value:.1f}" for name, value in seconds.items()},
        "versions": run_log.versions(PACKAGES),
        "flags": options.to_flagfile(experiment).splitlines(),
    }
    title = f"{experiment.name} {experiment.precision}"
    page.write(workdir / PAGE, title, judgements, facts, published_score.read())


def _say(console: Console, line: str) -> None:
    console.out(line, highlight=False)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the judge's flags beyond the experiment's."""
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
        "replay: each step from the recorded state; free: both stacks to the end, "
        "against JAX runs that start an ulp apart.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "threshold",
        THRESHOLD,
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


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(
        main,
        __doc__,
        default_precision="fp16",
        define_more=define_flags,
        crash_status=COULD_NOT_JUDGE,
    )


if __name__ == "__main__":
    command()

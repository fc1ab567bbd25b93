"""Trains one experiment in both stacks and judges whether they compute the same thing.

    python -m parity.run --flagfile=launch/experiments/breast_cancer.flags --steps=50

Both start from the same parameters and record every step. Each step that DeepSpeed took is then
replayed in JAX from DeepSpeed's own state, and measured in units of rounding noise; so is each
step that jaxnn.train took. Exit code 0: parity; 1: divergence; 2: could not judge.
"""

import json
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags
from rich.console import Console

from jaxnn import models, train, train_step
from jaxnn.experiment import batches, command_line, datasets, records
from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import Dataset
from jaxnn.experiment.trace import Reader, flatten
from parity import compare, judge, report
from parity.replay import Replay

PARITY, DIVERGENCE, COULD_NOT_JUDGE = 0, 1, 2
CONTENTS = (records.FLAGS, "initial.safetensors", "jax", "torch", "verdict.json", "jax.log", "torch.log")
LAST_LINES = 12


def main(experiment: Experiment, values: flags.FlagValues) -> int:
    """Initial parameters -> both recordings -> replay -> verdict."""
    start = time.perf_counter()
    if experiment.resume or experiment.checkpoint_every:
        raise UserError("--resume, --checkpoint_every: a judgement starts afresh; leave them out")
    train.configure(experiment)
    data = datasets.load(experiment)
    initial = initial_params(experiment, data)
    workdir = records.create_workdir(experiment, "parity", CONTENTS)
    records.write_params(workdir / "initial.safetensors", initial)
    steps = min(values["steps"].value, sum(batches.plan(experiment, len(data.train_inputs))))
    console = Console()
    title = f"{experiment.name} {experiment.precision}"
    console.print(f"{title}: recording {steps} steps in both stacks", highlight=False, soft_wrap=True)
    modules = {"jax": values["jax_module"].value, "torch": values["torch_module"].value}
    traces = record(steps, workdir, modules, values["torch_flags"].value)
    recorded = time.perf_counter()
    verdicts = judge_traces(experiment, data, traces, steps, values["threshold"].value)
    write_verdict(workdir, experiment, verdicts)
    report.print_verdict(verdicts, title, console)
    console.print(f"seconds: recording {recorded - start:.1f}, judging {time.perf_counter() - recorded:.1f}; "
                  f"files: {workdir}", highlight=False, soft_wrap=True)
    return DIVERGENCE if any(v["first_divergence"] for v in verdicts.values()) else PARITY


def initial_params(experiment: Experiment, data: Dataset) -> dict[str, np.ndarray]:
    """The flat float32 parameters that both stacks start from: those of `--init_params`, or fresh."""
    model, signature = models.build(experiment, data.signature), data.signature
    if experiment.init_params:
        params = train.read_initial_params(experiment, model, signature)
    else:
        params = jax.jit(lambda seed: train_step.initial_variables(model, seed, signature)["params"])(experiment.seed)
    return {name: np.asarray(array) for name, array in flatten(params).items()}


def record(steps: int, workdir: pathlib.Path, modules: dict[str, str],
           torch_flags: list[str]) -> dict[str, Reader]:
    """Runs both stacks side by side, each in a process of its own; returns their traces.

    Raises:
      UserError: a stack failed or recorded fewer steps; its last lines are shown.
    """
    running = {}
    for stack, module in modules.items():
        command = [sys.executable, "-m", module, f"--flagfile={workdir / records.FLAGS}", "--noplots",
                   f"--workdir={workdir / stack}", f"--init_params={workdir / 'initial.safetensors'}",
                   "--record=full", f"--record_steps={steps}", f"--max_steps={steps}",
                   *(torch_flags if stack == "torch" else ())]
        with (workdir / f"{stack}.log").open("w") as log:
            running[stack] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        failed = [stack for stack, process in running.items() if process.wait() != 0]
    finally:
        for process in running.values():
            process.kill()
    for stack in failed:
        lines = (workdir / f"{stack}.log").read_text().splitlines()[-LAST_LINES:]
        raise UserError(f"cannot judge: {modules[stack]} failed with exit code {running[stack].returncode}; "
                        f"the end of {workdir / f'{stack}.log'}:\n  " + "\n  ".join(lines))
    traces = {stack: Reader(workdir / stack / "trace") for stack in modules}
    for stack, trace in traces.items():
        if len(trace) != steps:
            raise UserError(f"cannot judge: {stack} recorded {len(trace)} of {steps} steps")
    return traces


def judge_traces(experiment: Experiment, data: Dataset, traces: dict[str, Reader], steps: int,
                 threshold: float) -> dict[str, dict]:
    """A verdict for each stack's recording, torch's first."""
    replay = Replay(experiment, data)
    total = batches.total_steps(experiment, len(data.train_inputs))
    shared = list(judge.judge_pair(traces["jax"], traces["torch"]))
    verdicts = {}
    for stack in ("torch", "jax"):
        measurements = [*shared, *judge.judge_rules(experiment, traces[stack], total)]
        for number in range(steps):
            measurements += judge.judge_step(replay, number, traces[stack].read(number), threshold)
        verdicts[stack] = compare.verdict(measurements, steps, threshold)
    return verdicts


def write_verdict(workdir: pathlib.Path, experiment: Experiment, verdicts: dict[str, dict]) -> None:
    """Writes verdict.json: the whole judgement's verdict on top, each recording's under `recordings`."""
    first = [{"recording": stack, **v["first_divergence"]} for stack, v in verdicts.items() if v["first_divergence"]]
    whole = {
        "experiment": experiment.name, "precision": experiment.precision,
        "verdict": "divergence" if first else "parity",
        "max_z": max(v["max_z"] for v in verdicts.values()),
        "threshold": verdicts["torch"]["threshold"], "steps": verdicts["torch"]["steps"],
        "first_divergence": min(first, key=lambda f: f["step"], default=None),
        "quantities": verdicts["torch"]["quantities"],
        "recordings": verdicts,
    }
    records.write_text(workdir / "verdict.json", json.dumps(whole, indent=2) + "\n")


def define_flags(values: flags.FlagValues) -> None:
    """What the judge takes beyond the experiment."""
    flags.DEFINE_integer("steps", 50, "Optimizer steps to record and judge.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("threshold", compare.THRESHOLD, "Largest z that passes, in noise units.", lower_bound=0,
                       flag_values=values)
    flags.DEFINE_string("jax_module", "jaxnn.train", "Module that records the JAX side.", flag_values=values)
    flags.DEFINE_string("torch_module", "torch_ref.train", "Module that records the torch side; it is given every "
                        "experiment flag.", flag_values=values)
    flags.DEFINE_multi_string("torch_flags", [], "A flag for the torch side alone, e.g. --torch_flags=--adam_eps=1e-6; "
                              "repeatable.", flag_values=values)


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp16", define_more=define_flags, crash_status=COULD_NOT_JUDGE)

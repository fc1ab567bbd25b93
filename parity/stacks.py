"""Runs both stacks side by side, a process each, and reads their traces."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxnn import models, train, train_step
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader, flatten
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.ports import free_port

INITIAL_PARAMS = "initial.safetensors"
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
LAST_LINES = 12
"""Lines of a failed stack's log to show."""


def initial_params(experiment: Experiment, data: Dataset) -> dict[str, np.ndarray]:
    """Returns the flat float32 parameters that both stacks start from.

    Those of `--init_params`, or fresh ones from `--seed`.
    """
    model = models.build(experiment, data.signature)
    if experiment.init_params:
        params = train.read_initial_params(experiment, model, data.signature)
    else:

        def make(seed: jax.Array):
            variables = train_step.initial_variables(model, seed, data.signature)
            return variables["params"]

        params = jax.jit(make)(experiment.seed)
    return {name: np.asarray(array) for name, array in flatten(params).items()}


def share_device() -> None:
    """Lets the processes of a judgement allocate a GPU's memory as they need it.

    Each JAX process would take three quarters of it at once, and there are two beside
    torch's. To be called before JAX touches a device; what is set already stays.
    """
    os.environ.setdefault(PREALLOCATE, "false")


def record(
    experiment: Experiment,
    steps: int,
    workdir: pathlib.Path,
    modules: Mapping[str, str],
    torch_flags: Sequence[str],
) -> dict[str, Reader]:
    """Records the first steps of each stack.

    Args:
      experiment: experiment; its --num_devices are JAX's devices and DeepSpeed's ranks.
      steps: number of steps to record.
      workdir: folder that holds the flagfile and the initial parameters; gets a folder
        and a log of each stack.
      modules: stack -> program that records it, for "jax" and "torch".
      torch_flags: flags for the torch side alone.

    Returns:
      stack -> its trace.

    Raises:
      UserError: a stack failed or recorded fewer steps; its last lines are shown.
    """
    recording = ["--record=full", f"--record_steps={steps}", f"--max_steps={steps}"]
    more = {"jax": recording, "torch": [*recording, *torch_flags]}
    run(experiment, workdir, modules, more)
    traces = {stack: Reader(workdir / stack / "trace") for stack in modules}
    for stack, trace in traces.items():
        if len(trace) != steps:
            raise UserError(
                f"cannot judge: {stack} recorded {len(trace)} of {steps} steps"
            )
    return traces


def run(
    experiment: Experiment,
    workdir: pathlib.Path,
    modules: Mapping[str, str],
    more: Mapping[str, Sequence[str]],
) -> None:
    """Runs each stack from the same initial parameters, and waits for them.

    Args:
      experiment: experiment; its --num_devices are JAX's devices and DeepSpeed's ranks.
      workdir: folder that holds the flagfile and the initial parameters; gets a folder
        and a log of each stack.
      modules: stack -> program to run, for "jax" and "torch".
      more: stack -> flags beyond those of the flagfile.

    Raises:
      UserError: a stack failed; its last lines are shown.
    """
    running = {}
    for stack, module in modules.items():
        command = [
            *launcher(stack, module, experiment.num_devices),
            f"--flagfile={workdir / artifacts.FLAGS}",
            "--noplots",
            f"--workdir={workdir / stack}",
            f"--init_params={workdir / INITIAL_PARAMS}",
            *more[stack],
        ]
        with (workdir / f"{stack}.log").open("w") as log:
            running[stack] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(stack, experiment.num_devices),
            )
    _wait(running, workdir, modules)


def launcher(stack: str, module: str, num_devices: int) -> list[str]:
    """Returns the start of a stack's command line.

    Several ranks of torch go through DeepSpeed's launcher.
    """
    if stack == "jax" or num_devices <= 1:
        return [sys.executable, "-m", module]
    return [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        f"--num_accelerators={num_devices}",
        # The launcher's default port is the same for every run on a host.
        f"--master_port={free_port()}",
        "--module",
        module,
    ]


def environment(stack: str, num_devices: int) -> dict[str, str]:
    """Returns this process's environment, with virtual CPU devices for JAX.

    As many as it is to use; where JAX runs on an accelerator the flag has no effect.
    """
    if stack != "jax" or num_devices <= 1:
        return dict(os.environ)
    flags = os.environ.get("XLA_FLAGS", "")
    virtual = f"--xla_force_host_platform_device_count={num_devices}"
    return {**os.environ, "XLA_FLAGS": f"{flags} {virtual}".strip()}


def finish(command: Sequence[str], module: str, flag: str) -> None:
    """Runs a half of a command to its end; its complaint becomes this program's.

    Args:
      command: command line.
      module: name of the program.
      flag: begins the complaint, unless it names a flag itself.

    Raises:
      UserError: it complained about its input.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    complaint = _complaint(lines)
    if done.returncode == command_line.BAD_INPUT and complaint:
        named = complaint.startswith("--")
        raise UserError(complaint if named else f"{flag}: {complaint}")
    if done.returncode:
        end = "\n".join(lines[-LAST_LINES:])
        raise RuntimeError(f"{module} failed:\n{end}")


def _wait(
    running: Mapping[str, subprocess.Popen],
    workdir: pathlib.Path,
    modules: Mapping[str, str],
) -> None:
    try:
        failed = [stack for stack, process in running.items() if process.wait() != 0]
    finally:
        # After Ctrl-C nothing is left behind; to a process that ended it does nothing.
        for process in running.values():
            process.kill()
    for stack in failed:
        log = workdir / f"{stack}.log"
        lines = log.read_text().splitlines()
        code = running[stack].returncode
        complaint = _complaint(lines)
        if code == command_line.BAD_INPUT and complaint:
            raise UserError(f"cannot judge: {modules[stack]}: {complaint}")
        raise UserError(
            f"cannot judge: {modules[stack]} failed with exit code {code}; the end of "
            f"{log}:\n  " + "\n  ".join(lines[-LAST_LINES:])
        )


def _complaint(lines: Sequence[str]) -> str:
    """Returns what a program says is wrong with its input, or ""."""
    told = (line.partition("error: ")[2] for line in lines if "error: " in line)
    return next(told, "")

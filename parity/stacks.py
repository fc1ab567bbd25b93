"""Runs both stacks side by side, each in a process of its own, and reads what they
recorded."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.files.trace import Reader
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.ports import free_port

LAST_LINES = 12


def record(
    experiment: Experiment,
    steps: int,
    workdir: pathlib.Path,
    modules: Mapping[str, str],
    torch_flags: Sequence[str],
) -> dict[str, Reader]:
    """Records `steps` steps of each stack.

    Args:
      experiment: its --num_devices are JAX's devices and DeepSpeed's ranks.
      steps: to record.
      workdir: holds the flagfile and the initial parameters; gets a folder and a log of
        each stack.
      modules: stack -> the program that records it, "jax" and "torch".
      torch_flags: for the torch side alone.

    Returns:
      stack -> its trace.

    Raises:
      UserError: a stack failed or recorded fewer steps; its last lines are shown.
    """
    recording = ["--record=full", f"--record_steps={steps}", f"--max_steps={steps}"]
    run(
        experiment,
        workdir,
        modules,
        {"jax": recording, "torch": [*recording, *torch_flags]},
    )
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
      experiment: its --num_devices are JAX's devices and DeepSpeed's ranks.
      workdir: holds the flagfile and the initial parameters; gets a folder and a log of
        each stack.
      modules: stack -> the program to run, "jax" and "torch".
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
            f"--init_params={workdir / 'initial.safetensors'}",
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
    """The beginning of a stack's command line: several ranks of torch go through
    DeepSpeed's launcher."""
    if stack == "jax" or num_devices <= 1:
        return [sys.executable, "-m", module]
    return [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        f"--num_accelerators={num_devices}",
        f"--master_port={free_port()}",
        "--module",
        module,
    ]


def environment(stack: str, num_devices: int) -> dict[str, str]:
    """This process's environment, with as many virtual devices for JAX as it is to use
    where it runs on a CPU."""
    virtual = f"--xla_force_host_platform_device_count={num_devices}"
    if stack != "jax" or num_devices <= 1:
        return dict(os.environ)
    return {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {virtual}".strip(),
    }


def _wait(
    running: Mapping[str, subprocess.Popen],
    workdir: pathlib.Path,
    modules: Mapping[str, str],
) -> None:
    try:
        failed = [stack for stack, process in running.items() if process.wait() != 0]
    finally:
        for process in running.values():
            process.kill()
    for stack in failed:
        lines = (workdir / f"{stack}.log").read_text().splitlines()[-LAST_LINES:]
        raise UserError(
            f"cannot judge: {modules[stack]} failed with exit "
            f"code {running[stack].returncode}; the end of "
            f"{workdir / f'{stack}.log'}:\n  " + "\n  ".join(lines)
        )

"""Judges two traces against each other: each step of either is replayed in JAX from its
own recorded state.

    python -m parity.compare TRACE_A TRACE_B [--threshold=8]

A trace is a folder with meta.json; its `flags` say which experiment it is of, the same
in both. A trace without flags, of a program of your own, is judged by a JAX step of
your own: see parity/own.py. One of the two may be of a run that was resumed, perhaps by
the other stack, from a checkpoint of the other: it is judged from there on, the state
that it begins with included. Exit code 0: parity; 1: divergence; 2: could not judge.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags
from rich.console import Console

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.continued import Continued
from parity.judging.measure import COULD_NOT_JUDGE, DIVERGENCE, PARITY, THRESHOLD
from parity.judging.recording import Judgement, judge_recording
from parity.judging.step import Replays
from parity.report import terminal

OF_THE_SIDE = (
    "--num_devices",
    "--device_cache_mb",
    "--zero_stage",
    "--fp16_kernels",
    "--convolution",
    "--plots",
    "--checkpoint_every",
    "--keep",
)
"""Flags that do not change the mathematics."""


def start() -> None:
    """Runs the command and exits."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    sys.argv = [
        sys.argv[0],
        *(argument for argument in sys.argv[1:] if argument.startswith("-")),
    ]
    command_line.run_tool(
        lambda values: main(names, values["threshold"].value),
        __doc__,
        define_flags,
        crash_status=COULD_NOT_JUDGE,
    )


def main(names: Sequence[str], threshold: float) -> int:
    """Two folders -> both judgements -> the exit code."""
    if len(names) != 2:
        raise UserError(
            "give the folders of two traces, e.g. RUN_A/trace RUN_B/trace; got "
            f"{len(names)}"
        )
    traces = open_traces(names)
    experiments = [experiment_of(trace, name) for trace, name in zip(traces, names)]
    check_alike(traces, names)
    stacks = [trace.meta["stack"] for trace in traces]
    labels = stacks if len(set(stacks)) == 2 else ["first", "second"]
    data = load_dataset(experiments[0])
    initial = select(traces[0].read(0), "params")
    judgements: dict[str, Judgement] = {}
    for label, trace, experiment in zip(labels, traces, experiments):
        replays = Replays(experiment, data, trace.meta["world_size"])
        judgements[label] = judge_recording(replays, trace, initial, threshold)
    print_judgements(judgements, f"{experiments[0].name} {experiments[0].precision}")
    return (
        DIVERGENCE
        if any(judged.verdict["first_divergence"] for judged in judgements.values())
        else PARITY
    )


def open_traces(names: Sequence[str]) -> list[Reader]:
    """Both traces; one of a resumed run continues the other.

    Raises:
      UserError: one cannot be read, or both are of resumed runs, or one begins after
        the other's end.
    """
    traces = [Reader(pathlib.Path(name)) for name in names]
    firsts = [trace.meta.get("first_step", 0) for trace in traces]
    for resumed, whole in ((0, 1), (1, 0)):
        if (firsts[resumed] and len(traces[whole]) < firsts[resumed]) or all(firsts):
            raise UserError(
                f"cannot judge: {names[resumed]} begins at step {firsts[resumed]} of a "
                f"resumed run, and {names[whole]} does not hold the steps before; give "
                "the trace of the run it continues"
            )
        if firsts[resumed]:
            traces[resumed] = Continued(pathlib.Path(names[resumed]), traces[whole])
    return traces


def experiment_of(trace: Reader, name: str) -> Experiment:
    """The experiment that a trace is of.

    Raises:
      UserError: it does not say, or its flags are not this program's.
    """
    lines = trace.meta["flags"]
    if not lines:
        raise UserError(
            f"cannot judge: {name}/meta.json has no flags, so there is no step to "
            "replay; give it a flagfile's lines, or judge it by a step of your own "
            "with parity.own.judge"
        )
    try:
        experiment, _ = command_line.parse(["compare", *lines], trace.meta["precision"])
    except UserError as error:
        raise UserError(f"cannot judge: {name}/meta.json: {error}") from None
    return experiment


def check_alike(traces: Sequence[Reader], names: Sequence[str]) -> None:
    """Raises UserError unless both traces are of one experiment and of as many steps."""
    left, right = (
        [
            line
            for line in trace.meta["flags"]
            if not line.lstrip("-").startswith(
                tuple(flag.lstrip("-") for flag in OF_THE_SIDE)
            )
        ]
        for trace in traces
    )
    for line in sorted({*left} ^ {*right}):
        has, lacks = (names[0], names[1]) if line in left else (names[1], names[0])
        raise UserError(
            f"cannot judge: the traces are of different experiments: {has} has {line}, "
            f"{lacks} has not"
        )
    if len(traces[0]) != len(traces[1]):
        raise UserError(
            f"cannot judge: {names[0]} holds {len(traces[0])} steps, {names[1]} "
            f"{len(traces[1])}; record as many of both"
        )
    if not len(traces[0]):
        raise UserError(f"cannot judge: {names[0]} holds no step")


def print_judgements(judgements: dict[str, Judgement], title: str) -> None:
    """Prints the table and what is to be said of a divergence."""
    console = Console()
    terminal.print_verdict(
        {label: judged.verdict for label, judged in judgements.items()}, title, console
    )
    for label, judged in judgements.items():
        for sentence in judged.sentences(label):
            console.print(f"{label}: {sentence}", highlight=False, soft_wrap=True)


def define_flags(values: flags.FlagValues) -> None:
    """What the comparison takes."""
    flags.DEFINE_float(
        "threshold",
        THRESHOLD,
        "Largest z that passes, in noise units.",
        lower_bound=0,
        flag_values=values,
    )

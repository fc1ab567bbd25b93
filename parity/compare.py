"""Judges two traces: each step of either is replayed in JAX from its own state.

    python -m parity.compare TRACE_A TRACE_B [--threshold=8]

A trace is a folder with meta.json; its `flags` say which experiment it is of, the same
in both. A trace without flags, of a program of your own, is judged by a JAX step of
your own: see parity/own.py. One of the two may be of a run that was resumed, perhaps by
the other stack, from a checkpoint of the other: it is judged from there on, including
the state that it begins with. Exit code 0: parity; 1: divergence; 2: could not judge.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from jaxnn import train
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader, select
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results.console import table_console
from parity.judging.measure import THRESHOLD
from parity.judging.recording import judge_recording
from parity.judging.replays import Replays
from parity.judging.verdict import COULD_NOT_JUDGE, DIVERGENCE, PARITY
from parity.report import terminal
from parity.whole_trace import require_whole

WITHOUT_EFFECT = (
    "num_devices",
    "device_cache_mb",
    "zero_stage",
    "fp16_kernels",
    "convolution",
    "plots",
    "checkpoint_every",
    "keep",
)
"""Flags that do not change the mathematics, and so may differ between two traces."""


class ContinuedReader(Reader):
    """The trace of a resumed run, read as one with that of the run it continues.

    What was judged of the first part need not be judged again.

    Args:
      folder: trace of the resumed run.
      before: trace of the other run, at least up to where the resumed one begins.

    Attributes:
      first: step of the run that the resumed trace begins with.

    Raises:
      UserError: as `Reader` does.
    """

    def __init__(self, folder: pathlib.Path, before: Reader):
        super().__init__(folder)
        self._before = before
        self.first = int(self.meta.get("first_step", 0))

    def __len__(self) -> int:
        return self.first + super().__len__()

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Returns a step of the whole run, counted from its beginning."""
        if step < self.first:
            return self._before.read(step)
        return super().read(step - self.first)


def start(arguments: Arguments) -> int:
    """Runs the command; returns the exit code."""
    return main(arguments.names, arguments.values.threshold)


@train.settings_put_back()
def main(names: Sequence[str], threshold: float) -> int:
    """Judges the traces in two folders; returns the exit code."""
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
    train.configure(experiments[0])
    data = load_dataset(experiments[0])
    for trace, name, experiment in zip(traces, names, experiments):
        require_whole(trace, name, experiment, data)
    initial = select(traces[0].read(0), "params")
    judgements = {}
    for label, trace, experiment in zip(labels, traces, experiments):
        replays = Replays(experiment, data, trace.meta["world_size"])
        judgements[label] = judge_recording(replays, trace, initial, threshold)
    title = f"{experiments[0].name} {experiments[0].precision}"
    terminal.print_judgements(judgements, title, table_console())
    is_parity = all(judged.verdict.is_parity for judged in judgements.values())
    return PARITY if is_parity else DIVERGENCE


def open_traces(names: Sequence[str]) -> list[Reader]:
    """Opens both traces; one of a resumed run continues the other.

    Raises:
      UserError: one cannot be read, both are of resumed runs, or one begins after the
        other's end.
    """
    traces = [Reader(pathlib.Path(name)) for name in names]
    firsts = [trace.meta.get("first_step", 0) for trace in traces]
    for resumed, whole in ((0, 1), (1, 0)):
        first = firsts[resumed]
        if (first and len(traces[whole]) < first) or all(firsts):
            raise UserError(
                f"cannot judge: {names[resumed]} begins at step {first} of a resumed "
                f"run, and {names[whole]} does not hold the steps before; give the "
                "trace of the run it continues"
            )
        if first:
            folder = pathlib.Path(names[resumed])
            traces[resumed] = ContinuedReader(folder, traces[whole])
    return traces


def experiment_of(trace: Reader, name: str) -> Experiment:
    """Returns the experiment that a trace is of.

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
        precision = trace.meta["precision"]
        experiment, _ = command_line.parse(["compare", *lines], precision)
    except UserError as error:
        raise UserError(f"cannot judge: {name}/meta.json: {error}") from None
    if experiment.precision != precision:
        raise UserError(
            f"cannot judge: {name}/meta.json: precision is {precision!r}, and "
            f"--precision={experiment.precision} among its flags; they must be equal"
        )
    return experiment


def check_alike(traces: Sequence[Reader], names: Sequence[str]) -> None:
    """Raises UserError unless both traces are of one experiment and equally long."""
    left, right = (
        {line for line in trace.meta["flags"] if _has_effect(line)} for trace in traces
    )
    for line in sorted(left ^ right):
        has, lacks = names if line in left else reversed(names)
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


def _has_effect(line: str) -> bool:
    return not line.lstrip("-").startswith(WITHOUT_EFFECT)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_float(
        "threshold",
        THRESHOLD,
        "Largest z that passes, in noise units.",
        lower_bound=0,
        flag_values=values,
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(
        start, __doc__, define_flags, crash_status=COULD_NOT_JUDGE
    )


if __name__ == "__main__":
    command()

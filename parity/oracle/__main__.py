"""Trains an experiment in NumPy float64, or prints the computation graph of a formula.

    python -m parity.oracle --flagfile=launch/experiments/mlp_xor.flags
    python -m parity.oracle --flagfile=FILE --backpropagation
    python -m parity.oracle --graph
    python -m parity.oracle --graph="exp(a*(b*c))" --at=a=1,b=2,c=3
    python -m parity.oracle --graph --graph_file=graph.svg

Writes files only if --workdir is given: experiment.flags, metrics.csv and
params.safetensors. Exit code 2: bad input, or training diverged.
"""

import pathlib
import time

from absl import flags

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report
from parity.oracle import graph, graph_paths, layer_report, train

CONTENTS = (artifacts.FLAGS, artifacts.METRICS, artifacts.PARAMS, artifacts.BATCH_STATS)
"""Files of a run, which `--overwrite` removes."""


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Prints a graph or the gradients of layers if asked to, else trains."""
    if values.graph is None and values.graph_file:
        raise UserError("--graph_file: belongs to --graph; add --graph=EXPRESSION")
    if values.backpropagation:
        check(experiment)
        data = load_dataset(experiment)
        print("\n".join(layer_report.lines(experiment, data)))
    elif values.graph is None and not values.at:
        train_and_report(experiment)
    else:
        show_graph(values.graph, values.at, values.graph_file)


def train_and_report(experiment: Experiment) -> None:
    """Trains, prints epochs and final metrics, and writes files under `--workdir`."""
    check(experiment)
    began = time.perf_counter()
    data = load_dataset(experiment)
    state = train.start(experiment, data)

    # Only now, so that bad input leaves no folder behind.
    workdir = None
    writer = None
    if experiment.workdir:
        workdir = artifacts.create_workdir(experiment, "oracle", CONTENTS)
        writer = artifacts.MetricsWriter(workdir)

    size = sum(array.size for array in state.params.values())
    print(
        f"{experiment.name}: {experiment.model} in NumPy float64, {size} parameters",
        flush=True,
    )
    trained = train.train(experiment, data, state, writer)
    if workdir:
        write(workdir, trained.state)
    print_results(experiment, data, trained)
    seconds = time.perf_counter() - began
    print(f"seconds: {seconds:.2f}" + (f"; files: {workdir}" if workdir else ""))


def check(experiment: Experiment) -> None:
    """Raises UserError on a flag that the oracle does not support.

    Recording is only noted: the flagfiles of whole experiments may ask for it.
    """
    if experiment.precision != "fp64":
        raise UserError(
            f"--precision: the oracle computes in fp64, got {experiment.precision}; "
            "leave it out or give --precision=fp64"
        )
    if experiment.num_devices > 1 and not experiment.sync_batch_norm:
        raise UserError(
            "--nosync_batch_norm: the oracle has no devices with statistics of their "
            "own; leave it out, or give --num_devices=1"
        )
    if experiment.resume or experiment.checkpoint_every:
        raise UserError(
            "--resume, --checkpoint_every: the oracle keeps no checkpoints; leave "
            "them out"
        )
    if experiment.record != "off":
        print("note: --record: the oracle writes no trace")


def print_results(
    experiment: Experiment, data: Dataset, trained: train.OracleRun
) -> None:
    """Prints the final metrics, and under `--patience` which epoch they are of."""
    final = report.final_metrics(
        experiment, data, trained.state.params, trained.outputs
    )
    print("\n".join(report.lines(final)))
    if experiment.patience:
        print(
            f"early stopping: parameters of epoch {trained.epoch} of "
            f"{len(trained.rows)} kept"
        )


def write(workdir: pathlib.Path, state: train.OracleState) -> None:
    """Writes the trained parameters and running statistics."""
    artifacts.write_params(workdir / artifacts.PARAMS, state.params)
    if state.batch_stats:
        artifacts.write_params(workdir / artifacts.BATCH_STATS, state.batch_stats)


def show_graph(expression: str | None, at: str, file: str) -> None:
    """Prints the nodes of an expression, and the paths that lead to its output.

    Args:
      expression: value of `--graph`, or None if `--at` came alone.
      at: values of the inputs, "a=1,b=2".
      file: where to draw it, or "".

    Raises:
      UserError: the expression or the values cannot be read.
    """
    if expression is None:
        raise UserError("--at: belongs to --graph; add --graph=EXPRESSION")
    if expression == graph.EXAMPLE and not at:
        at = graph.EXAMPLE_AT
    nodes = graph.build(expression, graph.parse_values(at))
    derivatives = graph.derivatives_of(nodes)
    if file:
        # matplotlib takes long to import.
        from parity.oracle import graph_drawing

        graph_drawing.write(pathlib.Path(file), nodes, derivatives)
    print("\n".join([*graph.table(nodes), *graph_paths.lines(nodes, derivatives)]))
    if file:
        print(f"file: {file}")


class GraphParser(flags.ArgumentParser):
    """Parses `--graph`, which may come with an expression or alone."""

    def parse(self, argument: str) -> str | None:
        """Returns the expression, the example for `--graph`, None for `--nograph`."""
        # A flag with boolean=True may come without a value: absl then passes "true",
        # or "false" for --nograph.
        return {"true": graph.EXAMPLE, "false": None}.get(argument, argument)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags beyond those of the experiment."""
    text = (
        "Expression to print the graph of, e.g. exp(a*(b*c)); --graph alone: "
        f"{graph.EXAMPLE}."
    )
    flags.DEFINE_flag(
        flags.Flag(
            GraphParser(), flags.ArgumentSerializer(), "graph", None, text, boolean=True
        ),
        values,
    )
    flags.DEFINE_string(
        "at", "", "Values of the inputs of --graph: a=1,b=2.", flag_values=values
    )
    flags.DEFINE_bool(
        "backpropagation",
        False,
        "Train nothing; print the error and the gradients of each layer of a dense "
        "network over the first batch.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "graph_file",
        "",
        "Draw --graph into this file: FILE.svg, or FILE.mmd for Mermaid.",
        flag_values=values,
    )


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp64", define_more=define_flags)

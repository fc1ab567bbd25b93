"""Trains an experiment with NumPy alone, in float64; or shows the computation graph of
an expression.

    python -m parity.oracle --flagfile=launch/experiments/mlp_xor.flags
    python -m parity.oracle --graph
    python -m parity.oracle --graph="exp(a*(b*c))" --at=a=1,b=2,c=3

Writes nothing unless --workdir is given: then metrics.csv and params.safetensors. Exit
code 2 on bad input or divergence.
"""

import pathlib
import time

from absl import flags

from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files import artifacts
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import report
from parity.oracle import graph, train

CONTENTS = (artifacts.FLAGS, artifacts.METRICS, artifacts.PARAMS, artifacts.BATCH_STATS)


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Shows a graph or trains."""
    if values["graph"].value is None and not values["at"].value:
        train_and_report(experiment)
    else:
        show_graph(values["graph"].value, values["at"].value)


def train_and_report(experiment: Experiment) -> None:
    """Data -> parameters -> epochs -> files -> final metrics."""
    check(experiment)
    began, data = time.perf_counter(), load_dataset(experiment)
    state = train.start(experiment, data)
    workdir = (
        artifacts.create_workdir(experiment, "oracle", CONTENTS)
        if experiment.workdir
        else None
    )
    print(
        f"{experiment.name}: {experiment.model} in NumPy float64, "
        f"{sum(array.size for array in state.params.values())} parameters",
        flush=True,
    )
    trained = train.train(
        experiment, data, state, artifacts.MetricsWriter(workdir) if workdir else None
    )
    if workdir:
        write(workdir, trained.state)
    final = report.final_metrics(
        experiment, data, trained.state.params, trained.outputs
    )
    print("\n".join(report.lines(final)))
    if experiment.patience:
        print(
            f"early stopping: parameters of epoch {trained.epoch} of "
            f"{len(trained.rows)} kept"
        )
    print(
        f"seconds: {time.perf_counter() - began:.2f}"
        + (f"; files: {workdir}" if workdir else "")
    )


def check(experiment: Experiment) -> None:
    """Raises UserError on a flag that asks for what the oracle does not do; says so of
    a trace."""
    if experiment.precision != "fp64":
        raise UserError(
            f"--precision: the oracle computes in fp64, got {experiment.precision}; "
            "leave it out or give --precision=fp64"
        )
    if experiment.num_devices > 1 and not experiment.sync_batch_norm:
        raise UserError(
            "--nosync_batch_norm: the oracle has no devices, whose statistics would "
            "differ; leave it out, or give --num_devices=1"
        )
    if experiment.resume or experiment.checkpoint_every:
        raise UserError(
            "--resume, --checkpoint_every: the oracle keeps no checkpoints; leave "
            "them out"
        )
    if experiment.record != "off":
        print("note: --record: the oracle writes no trace")


def write(workdir: pathlib.Path, state: train.OracleState) -> None:
    """Writes the trained parameters and running statistics."""
    artifacts.write_params(workdir / artifacts.PARAMS, state.params)
    if state.batch_stats:
        artifacts.write_params(workdir / artifacts.BATCH_STATS, state.batch_stats)


def show_graph(expression: str | None, at: str) -> None:
    """Prints an expression's nodes with their values and derivatives.

    Raises:
      UserError: the expression or the values cannot be read.
    """
    if expression is None:
        raise UserError("--at: belongs to --graph; add --graph=EXPRESSION")
    at = graph.EXAMPLE_AT if expression == graph.EXAMPLE and not at else at
    print("\n".join(graph.table(graph.build(expression, graph.parse_values(at)))))


class GraphParser(flags.ArgumentParser):
    """A flag's expression; the flag alone is the example's."""

    def parse(self, argument: str) -> str | None:
        """absl hands over "true" for --graph and "false" for --nograph."""
        return {"true": graph.EXAMPLE, "false": None}.get(argument, argument)


def define_flags(values: flags.FlagValues) -> None:
    """What the oracle takes beyond the experiment."""
    text = (
        "Expression to show the graph of, e.g. exp(a*(b*c)); --graph alone: "
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


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp64", define_more=define_flags)

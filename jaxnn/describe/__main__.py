"""Describes a network: layers, parameters, FLOPs and memory.

Nothing is trained or allocated.

    python -m jaxnn.describe --flagfile=launch/experiments/digits.flags

and, for a network without its data:

    python -m jaxnn.describe --flagfile=launch/describe/resnet50.flags

or how training it would scale, on paper:

    python -m jaxnn.describe --flagfile=launch/describe/resnet50.flags \
        --devices=64 --peak_tflops=312 --bandwidth_gbs=25 --nocompile

or what a rank holds by ZeRO stage:

    python -m jaxnn.describe --flagfile=launch/describe/resnet50.flags \
        --num_devices=8 --zero_stage=2 --nocompile

Counting from shapes takes seconds; compiling the programs may take minutes
(--nocompile leaves that out). Exit code 2 on bad input.
"""

from absl import flags
from rich.console import Console

from jaxnn import train
from jaxnn.describe import (
    abstract_step,
    layer_table,
    report,
    scaling_report,
    step_memory,
    zero,
)
from jaxnn.experiment.catalogue import (
    BINARY,
    LANGUAGE,
    MULTICLASS,
    REGRESSION,
    losses_for,
)
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

WIDTH = 100
"""Columns of the terminal; the tables are the same everywhere."""


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> shapes -> traced step -> tables; then the compiled programs."""
    # XLA reads its flags when the backend starts, so this comes first.
    train.configure(experiment)
    machine = scaling_report.machine(values)
    console = Console(width=WIDTH, highlight=False, markup=False)
    step = abstract_step.build(experiment, signature(experiment, values))
    traced = layer_table.trace(step)
    report.print_layers(step, traced, console)
    report.print_memory(step, traced, console)
    if experiment.num_devices > 1:
        zero.print_stages(step, console)
    if machine:
        scaling_report.print_scaling(step, traced, machine, values.devices, console)
    if values.compile:
        forward = step_memory.compile_forward(step)
        whole = step_memory.compile_step(step)
        report.print_compiled(step, traced.has_loops, forward, whole, console)
    if report.is_published_example(step):
        report.print_published_figures(step, traced, console)


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags that only this program has."""
    flags.DEFINE_list(
        "input_shape",
        [],
        "Shape of one example, e.g. 224,224,3, to describe a network without its "
        "data; no data set is loaded. Empty: the shape of the data set.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_outputs",
        0,
        "With --input_shape: number of values or logits per example; 0: --num_tokens.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_tokens",
        0,
        "With --input_shape: vocabulary size of a language model, which reads tokens "
        "and predicts one at each step; 0: the inputs are real numbers.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "compile",
        True,
        "Compile the forward pass and the training step and print the compiler's own "
        "analysis.",
        flag_values=values,
    )
    scaling_report.define_flags(values)


def signature(experiment: Experiment, values: flags.FlagValues) -> Signature:
    """Returns the shapes of `--input_shape`, or those of the experiment's data.

    Raises:
      UserError: a shape that is none, or outputs that do not fit the loss.
    """
    if values.input_shape:
        shape = _sizes(values.input_shape)
        return _given(experiment, shape, values.num_outputs, values.num_tokens)
    if values.num_outputs or values.num_tokens:
        raise UserError(
            "--num_outputs, --num_tokens: are the data set's; give them with "
            "--input_shape only"
        )
    return load_dataset(experiment).signature


def _given(
    experiment: Experiment, shape: tuple[int, ...], num_outputs: int, num_tokens: int
) -> Signature:
    if num_tokens < 0 or num_outputs < 0:
        raise UserError("--num_outputs, --num_tokens: must be at least 0")
    if not num_tokens and not num_outputs:
        raise UserError(
            "--num_outputs: --input_shape needs it, e.g. --num_outputs=1000"
        )
    if num_tokens and (num_outputs not in (0, num_tokens) or len(shape) != 1):
        raise UserError(
            "--num_tokens: a language model reads --input_shape=STEPS and puts out "
            "one logit a token; leave out --num_outputs"
        )
    _check_loss(experiment, num_outputs, num_tokens)
    width = num_outputs or num_tokens
    return Signature(shape, width, num_tokens, per_step=num_tokens > 0)


def _check_loss(experiment: Experiment, num_outputs: int, num_tokens: int) -> None:
    # Without data the task is unknown: every task of such outputs is tried.
    if num_tokens:
        tasks = (LANGUAGE,)
    elif num_outputs == 1:
        tasks = (BINARY, REGRESSION)
    else:
        tasks = (MULTICLASS, REGRESSION)
    fitting = [loss for task in tasks for loss in losses_for(task)]
    if experiment.loss not in fitting:
        raise UserError(
            f"--loss: {experiment.loss} does not fit --num_outputs={num_outputs}; "
            f"use {' or '.join(dict.fromkeys(fitting))}"
        )


def _sizes(items: list[str]) -> tuple[int, ...]:
    try:
        sizes = tuple(int(item) for item in items)
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise UserError(
            "--input_shape: takes whole numbers above 0 separated by commas, got "
            f"{','.join(items)!r}"
        )
    return sizes


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run(main, __doc__, default_precision="fp32", define_more=define_more)


if __name__ == "__main__":
    command()

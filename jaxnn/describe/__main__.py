"""Describes a network without training or allocating it: layers, parameters, FLOPs,
memory.

    python -m jaxnn.describe --flagfile=launch/experiments/digits.flags
    python -m jaxnn.describe --flagfile=launch/describe/resnet50.flags      # a network without its data

What is counted from shapes takes seconds; the compiled programs may take minutes
(--nocompile leaves them out). Exit code 2 on bad input.
"""

from absl import flags
from rich.console import Console

from jaxnn import train
from jaxnn.describe import abstract_step, layer_table, report, step_memory
from jaxnn.experiment.data.dataset import (
    BINARY,
    LANGUAGE,
    MULTICLASS,
    REGRESSION,
    Signature,
)
from jaxnn.experiment.data.load import LOSSES, load_dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

WIDTH = 100


def main(experiment: Experiment, values: flags.FlagValues) -> None:
    """Flags -> shapes -> trace -> table; then the compiled programs."""
    train.configure(experiment)
    console = Console(width=WIDTH, highlight=False, markup=False)
    step = abstract_step.build(experiment, signature(experiment, values))
    traced = layer_table.trace(step)
    report.print_layers(step, traced, console)
    report.print_memory(step, traced, console)
    if values.compile:
        compiled = step_memory.compile_forward(step), step_memory.compile_step(step)
        report.print_compiled(step, traced.has_loops, *compiled, console)
    report.print_seed_figures(step, traced, console)


def define_more(values: flags.FlagValues) -> None:
    """Defines the flags of this program alone."""
    flags.DEFINE_list(
        "input_shape",
        [],
        "Shape of one example, e.g. 224,224,3, for a network without its data: no "
        "data set is loaded. Empty: the data set's.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_outputs",
        0,
        "With --input_shape: values or logits of an example; 0: --num_tokens.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_tokens",
        0,
        "With --input_shape: size of the vocabulary of a language model, whose "
        "inputs are tokens and which predicts one at each step; 0: the inputs are "
        "numbers.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "compile",
        True,
        "Compile the forward pass and the training step, for their own analysis.",
        flag_values=values,
    )


def signature(experiment: Experiment, values: flags.FlagValues) -> Signature:
    """The shapes of `--input_shape`, or of the experiment's data.

    Raises:
      UserError: a shape that is none, or outputs that do not fit the loss.
    """
    if not values.input_shape:
        if values.num_outputs or values.num_tokens:
            raise UserError(
                "--num_outputs, --num_tokens: are the data set's; give them with "
                "--input_shape only"
            )
        return load_dataset(experiment).signature
    return _given(
        experiment, _sizes(values.input_shape), values.num_outputs, values.num_tokens
    )


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
    tasks = (
        (LANGUAGE,)
        if num_tokens
        else (BINARY if num_outputs == 1 else MULTICLASS, REGRESSION)
    )
    fitting = [loss for task in tasks for loss in LOSSES[task]]
    if experiment.loss not in fitting:
        raise UserError(
            f"--loss: {experiment.loss} does not fit --num_outputs={num_outputs}; "
            f"use {' or '.join(dict.fromkeys(fitting))}"
        )
    return Signature(
        shape, num_outputs or num_tokens, num_tokens, per_step=num_tokens > 0
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


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp32", define_more=define_more)

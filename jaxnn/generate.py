"""Writes text with a trained language model.

    python -m jaxnn.generate --workdir=RUN --prompt="The import statement"

RUN is the folder of a language model's run, e.g. runs/transformer_text-jax-...

The network sees the last --sequence_length characters of the prompt. Once the text is
longer than that, a Transformer moves on in hops: it sees half to all of that many of
the last characters. A recurrent network keeps its state, and a network of one's own
sees the last --sequence_length characters each time.
"""

from absl import flags

from jaxnn import decoding, finished_run, train
from jaxnn.experiment.catalogue import LANGUAGE
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.memory import require_room

LEAST = {"length": 1, "temperature": 0, "top_k": 0, "seed": 0}
"""Flag -> smallest value that it takes."""


def main(values: flags.FlagValues) -> None:
    """Run and prompt -> text on stdout."""
    # Not absl's lower_bound, whose error is a paragraph; `not >=` refuses NaN too.
    for name, least in LEAST.items():
        value = values.get_flag_value(name, None)
        if not value >= least:
            raise UserError(f"--{name}: must be at least {least}, got {value}")
    # The key of a draw, and its token.
    require_room(12.0 * values.length, "--length", f"{values.length} characters")
    run = finished_run.load(values.workdir)
    if run.description.task != LANGUAGE:
        raise UserError(
            f"--workdir: {values['workdir'].value} is a {run.description.task} run; "
            "text needs a language model, e.g. of "
            "launch/experiments/transformer_text.flags"
        )
    train.configure(run.experiment)
    prompt = str(values.prompt)
    text = decoding.generate(
        run.reader or run.forward,
        run.description.vocabulary,
        run.experiment.sequence_length,
        prompt,
        values.length,
        values.temperature,
        values.top_k,
        values.seed,
    )
    print(prompt + text)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("workdir", "", "Run directory.", flag_values=values)
    flags.DEFINE_string(
        "prompt", "", "Text to continue; empty: a new line.", flag_values=values
    )
    flags.DEFINE_integer(
        "length", 500, "Number of characters to write.", flag_values=values
    )
    flags.DEFINE_float(
        "temperature",
        0.8,
        "Divisor of the logits. Below 1 likely characters become more likely; 0 always "
        "takes the likeliest.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "top_k",
        0,
        "Draw among the k likeliest characters; 0: among all.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Seed of the draws.", flag_values=values)


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_tool(main, __doc__, define_flags)


if __name__ == "__main__":
    command()

"""Judges a recording of your own training by your own JAX port of it.

    python -m parity.own TRACE port.py [--threshold=8]

TRACE is a folder that parity.own.record wrote. port.py defines `model`, `loss`,
`optimizer` and `convert`, as parity.own.judge takes them; all but `model` may be
missing. Prints a table and writes verdict.json and report.html into TRACE. Exit code 0:
parity; 1: divergence; 2: could not judge.
"""

import pathlib

from absl import flags

from jaxnn.compilation_cache import keep_compiled
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from parity.judging.measure import THRESHOLD
from parity.judging.verdict import COULD_NOT_JUDGE, DIVERGENCE, PARITY
from parity.own.port_file import read_port
from parity.own.present import judge_and_present


def main(arguments: Arguments) -> int:
    """Judges, and returns the exit code."""
    if len(arguments.names) != 2:
        raise UserError(
            f"two names are needed, TRACE and port.py, not {len(arguments.names)}; "
            "python -m parity.own runs/mine port.py"
        )
    trace, file = map(pathlib.Path, arguments.names)
    port = read_port(file)
    keep_compiled()
    judged = judge_and_present(
        trace,
        port["model"],
        port["loss"],
        port["optimizer"],
        port["convert"],
        arguments.values.threshold,
    )
    return PARITY if judged.verdict.is_parity else DIVERGENCE


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    flags.DEFINE_float(
        "threshold",
        THRESHOLD,
        "Largest z that passes, in noise units.",
        lower_bound=0,
        flag_values=values,
    )


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(main, __doc__, define_flags, crash_status=COULD_NOT_JUDGE)


if __name__ == "__main__":
    command()

"""Says in plain words what is wrong with a run of either stack.

    python -m jaxnn.doctor RUN

RUN is the folder that training printed at its end, or one that it left behind. A line a
finding: the figure that shows it, and the flag to change; then what could not be seen.
Exit code 0 if nothing was found, 1 if something was, 2 if RUN cannot be read.
"""

import pathlib

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.command_line import Arguments
from jaxnn.experiment.results import doctor
from jaxnn.experiment.results.doctor import evidence


def main(arguments: Arguments) -> int:
    """Prints what is wrong with the run that the command line names.

    Raises:
      UserError: it names none or several, or the run cannot be read.
    """
    if len(arguments.names) != 1:
        raise UserError(
            f"RUN: give the folder of one run, got {len(arguments.names)}; python -m "
            "jaxnn.doctor runs/NAME"
        )
    known = evidence.read(pathlib.Path(arguments.names[0]))
    found = doctor.examine(known)
    for finding in found:
        print(finding)
    if not found:
        print("nothing found")
    for line in doctor.unseen(known):
        print(f"not seen: {line}")
    return int(bool(found))


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags: none."""
    del values


def command() -> None:
    """Runs the program on the command line of the process."""
    command_line.run_on_names(main, __doc__, define_flags)


if __name__ == "__main__":
    command()

"""How every command starts and ends: flags in, one clear line and exit code 2 on bad
input."""

import errno
import gc
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from absl import flags

from jaxnn.experiment import console
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import options, parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import reading
from jaxnn.experiment.flags.deepspeed.draft import Draft

BAD_INPUT = 2
DEVICE_FULL = "RESOURCE_EXHAUSTED"
"""XLA's word in the error of a device without memory."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more."""
PATHS = (
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
)
"""Errors of a path that cannot be used as it is."""

Define = Callable[[flags.FlagValues], None]
"""Defines flags on the values it is given."""


class Arguments(NamedTuple):
    """A parsed command line.

    Attributes:
      values: values of the flags that the command defines.
      names: positional arguments.
      forwarded: flags that the command does not define, as they were given.
    """

    values: flags.FlagValues
    names: list[str]
    forwarded: list[str]


def parse(
    argv: Sequence[str], default_precision: str, define_more: Define | None = None
) -> tuple[Experiment, flags.FlagValues]:
    """Parses the command line of a program that takes an experiment.

    Args:
      argv: program name and arguments; flagfiles are read.
      default_precision: what an empty `--precision` means to this program.
      define_more: defines flags beyond the experiment's.

    Returns:
      The checked experiment, and the flag values for whatever `define_more` defined.

    Raises:
      UserError: unknown flag, bad value, unreadable flagfile, or a `--ds_config` at
        odds with the flags.
    """
    experiment, values, _ = _parse(argv, default_precision, define_more)
    return experiment, values


def _parse(
    argv: Sequence[str], default_precision: str, define_more: Define | None
) -> tuple[Experiment, flags.FlagValues, Draft | None]:
    """`parse`, and what was read of a ds_config."""
    values = parse_values(argv, _experiment_and(define_more))
    if not values.ds_config:
        return parsing.from_flags(values, default_precision), values, None
    # A ds_config's settings become flags before the experiment is made of them.
    typed = _typed(argv, _experiment_and(define_more))
    experiment, draft = reading.from_flags(values, default_precision, typed, argv)
    return experiment, values, draft


def parse_values(argv: Sequence[str], define: Define) -> flags.FlagValues:
    """Parses a command line without positional arguments; raises as `parse` does."""
    arguments = parse_arguments(argv, define)
    if arguments.names:
        raise UserError(
            f"unexpected argument {arguments.names[0]!r}: flags look like --name=value"
        )
    return arguments.values


def _typed(argv: Sequence[str], define: Define) -> set[str]:
    """Returns the flags that stand on the command line itself, not in a flagfile."""
    rest, skips = [], False
    for argument in argv:
        name, equals, _ = argument.lstrip("-").partition("=")
        is_flagfile = argument.startswith("-") and name == "flagfile"
        if not is_flagfile and not skips:
            rest.append(argument)
        # The file may be the next argument.
        skips = is_flagfile and not equals
    values = parse_arguments(rest, define).values
    return {name for name in values if values[name].present}


def parse_arguments(
    argv: Sequence[str], define: Define, forwards: bool = False
) -> Arguments:
    """Parses a command line.

    Args:
      argv: program name and arguments; flagfiles are read.
      define: defines the command's flags.
      forwards: keep unknown flags for a program that this one starts.

    Raises:
      UserError: unknown flag that is not forwarded, bad value, a number beyond int32 or
        float32, unreadable flagfile.
    """
    values = flags.FlagValues()
    # Positional arguments may stand between flags.
    values.set_gnu_getopt(True)
    define(values)
    try:
        rest = values(list(argv), known_only=forwards)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error)) from None
    except flags.CantOpenFlagFileError as error:
        reason = str(error).rpartition("] ")[2]
        raise UserError(f"--flagfile: cannot read it: {reason}") from None
    # A flagfile that is no text, or that names one with a NUL byte in its name.
    except ValueError as error:
        raise UserError(
            f"--flagfile: cannot read it: {error}; give a text file in UTF-8"
        ) from None
    except flags.Error as error:
        # absl's own message names the flag; folded into one line.
        message = " ".join(str(error).removeprefix("flag ").split())
        raise UserError(message) from None
    _check_numbers(values)
    names = [argument for argument in rest if not argument.startswith("-")]
    forwarded = [argument for argument in rest if argument.startswith("-")]
    return Arguments(values, names, forwarded)


def check_known(flag: str, given: Sequence[str], known: Collection[str]) -> None:
    """Raises UserError if a list flag has an unknown entry."""
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"--{flag}: unknown {unknown[0]!r}; known: {', '.join(known)}")


def _check_numbers(values: flags.FlagValues) -> None:
    # Of any command: absl's bounds let NaN and infinity pass.
    for name in values:
        value = values[name].value
        if isinstance(value, int | float) and not isinstance(value, bool):
            options.check_number(f"--{name}", value)


def _unknown_flag(error: flags.UnrecognizedFlagError) -> str:
    message = error.args[0]
    hint = ""
    if "Did you mean" in message:
        hint = f"; did you mean {message.split('Did you mean: ')[1]}"
    return f"--{error.flagname}: unknown flag{hint}; --help lists them all"


def help_text(description: str | None, define: Define) -> str:
    """Returns the text of `--help`: description, then every flag with its default."""
    values = flags.FlagValues()
    define(values)
    lines = [
        (description or "").strip(),
        "",
        "Flags (--flagfile=FILE reads them from a file):",
    ]
    for name in values:
        flag = values[name]
        default = flag.default
        if isinstance(default, list):
            default = ",".join(default)
        lines.append(f"  --{name}: {flag.help} [{default}]")
    return "\n".join(lines)


def run(
    main: Callable[..., int | None],
    description: str | None,
    default_precision: str,
    define_more: Define | None = None,
    crash_status: int = 1,
    leave: Callable[[int], None] = sys.exit,
) -> None:
    """Runs a program that takes an experiment, then exits as `run_tool` does.

    Args:
      main: main(experiment), or main(experiment, values) with `define_more`; returns
        an exit code, or None for 0.
      description: first part of `--help`.
      default_precision: what an empty `--precision` means to this program.
      define_more: defines flags beyond the experiment's.
      crash_status: exit code after a fault of the program itself.
      leave: ends the process with an exit code.
    """

    def parse_and_run() -> int | None:
        experiment, values, draft = _parse(sys.argv, default_precision, define_more)
        with reading.keys_named(draft):
            return main(experiment, values) if define_more else main(experiment)

    _run(parse_and_run, description, _experiment_and(define_more), crash_status, leave)


def run_tool(
    main: Callable[[flags.FlagValues], int | None],
    description: str | None,
    define: Define,
    crash_status: int = 1,
) -> None:
    """Runs a command that has flags of its own and no positional arguments, then exits.

    Bad input ends the program with exit code 2 and one line on stderr; a fault of the
    program itself with its traceback and exit code `crash_status`.

    Args:
      main: main(values); returns an exit code, or None for 0.
      description: first part of `--help`.
      define: defines the command's flags.
      crash_status: exit code after a fault of the program itself.
    """

    def parse_and_run() -> int | None:
        return main(parse_values(sys.argv, define))

    _run(parse_and_run, description, define, crash_status)


def run_on_names(
    main: Callable[[Arguments], int | None],
    description: str | None,
    define: Define,
    forwards: bool = False,
    crash_status: int = 1,
) -> None:
    """Runs a command that takes positional arguments, then exits as `run_tool` does.

    Args:
      main: main(arguments); returns an exit code, or None for 0.
      description: first part of `--help`.
      define: defines the command's flags.
      forwards: keep unknown flags for a program that this one starts.
      crash_status: exit code after a fault of the program itself.
    """

    def parse_and_run() -> int | None:
        return main(parse_arguments(sys.argv, define, forwards))

    _run(parse_and_run, description, define, crash_status)


def _run(
    body: Callable[[], int | None],
    description: str | None,
    define: Define,
    crash_status: int,
    leave: Callable[[int], None] = sys.exit,
) -> None:
    console.open_closed_streams()
    wants_help = any(flag in ("-h", "-help", "--help") for flag in sys.argv[1:])
    # What was imported stays: searching it for garbage, now and on the way out, costs
    # 0.3 s.
    gc.freeze()
    if wants_help:
        status = _status_of(lambda: print(help_text(description, define)), crash_status)
        sys.exit(status)
    status = _status_of(body, crash_status)
    gc.freeze()
    leave(status)


def _status_of(body: Callable[[], int | None], crash_status: int) -> int:
    """Runs the body and says what went wrong, if anything; returns the exit code."""
    try:
        status = body() or 0
        return console.flush() or status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return console.INTERRUPTED
    except BrokenPipeError:
        return console.drop_output()
    except MemoryError as error:
        print(
            f"error: not enough memory: {error or 'none left'}; choose smaller sizes, "
            "a smaller --batch_size first",
            file=sys.stderr,
        )
        return BAD_INPUT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (*NO_ROOM, *PATHS):
            print(f"error: {_of_the_disk(error)}", file=sys.stderr)
            return BAD_INPUT
        if DEVICE_FULL in str(error):
            print(
                "error: the device has no memory left; choose a smaller --batch_size, "
                "or leave JAX's other processes less by XLA_PYTHON_CLIENT_PREALLOCATE="
                "false or XLA_PYTHON_CLIENT_MEM_FRACTION",
                file=sys.stderr,
            )
            return BAD_INPUT
        traceback.print_exc()
        return crash_status


def _of_the_disk(error: OSError) -> str:
    name = error.filename or "a file"
    if error.errno in NO_ROOM:
        return f"cannot write {name}: {error.strerror}; make room"
    return f"cannot use {name}: {error.strerror}; choose another path, or its rights"


def _experiment_and(define_more: Define | None) -> Define:
    def define(values: flags.FlagValues) -> None:
        parsing.define_flags(values)
        if define_more:
            define_more(values)

    return define

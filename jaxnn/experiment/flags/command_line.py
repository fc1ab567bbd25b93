"""How every command starts and ends: flags in, one clear line and exit code 2 on bad
input."""

import errno
import gc
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import flags

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import parsing
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import reading

BAD_INPUT = 2
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
Define = Callable[[flags.FlagValues], None]


def parse(
    argv: Sequence[str], default_precision: str, define_more: Define | None = None
) -> tuple[Experiment, flags.FlagValues]:
    """Parses a command line, flagfiles included.

    Args:
      argv: program name and arguments.
      default_precision: what an empty `--precision` means to this program.
      define_more: defines flags beyond the experiment's.

    Returns:
      The checked experiment, and the flag values for whatever `define_more` defined.

    Raises:
      UserError: unknown flag, bad value, unreadable flagfile, or a `--ds_config` at
        odds with the flags.
    """
    values = parse_values(argv, _experiment_and(define_more))
    from_flags = reading.from_flags if values["ds_config"].value else parsing.from_flags
    return from_flags(values, default_precision), values


def parse_values(argv: Sequence[str], define: Define) -> flags.FlagValues:
    """Parses the flags that `define` defines; raises UserError as `parse` does."""
    values = flags.FlagValues()
    define(values)
    try:
        extra = values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        close = (
            f"; did you mean {error.args[0].split('Did you mean: ')[1]}"
            if "Did you mean" in error.args[0]
            else ""
        )
        raise UserError(
            f"--{error.flagname}: unknown flag{close}; --help lists them all"
        ) from None
    except flags.CantOpenFlagFileError as error:
        raise UserError(
            f"--flagfile: cannot read it: {str(error).rpartition('] ')[2]}"
        ) from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).removeprefix("flag ").split())) from None
    if extra:
        raise UserError(
            f"unexpected argument {extra[0]!r}: flags look like --name=value"
        )
    return values


def help_text(description: str, define: Define) -> str:
    """The text of `--help`: the program's description, then every flag with its
    default."""
    values = flags.FlagValues()
    define(values)
    lines = [description.strip(), "", "Flags (--flagfile=FILE reads them from a file):"]
    for name in values:
        flag = values[name]
        default = (
            ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        )
        lines.append(f"  --{name}: {flag.help} [{default}]")
    return "\n".join(lines)


def run(
    main: Callable[..., int | None],
    description: str,
    default_precision: str,
    define_more: Define | None = None,
    crash_status: int = 1,
    leave: Callable[[int], None] = sys.exit,
) -> None:
    """Runs `main(experiment)`, or `main(experiment, values)` with `define_more`; then
    exits as `run_tool` does.

    `leave` ends the process with an exit code.
    """

    def parse_and_run() -> int | None:
        experiment, values = parse(sys.argv, default_precision, define_more)
        return main(experiment, values) if define_more else main(experiment)

    _run(parse_and_run, description, _experiment_and(define_more), crash_status, leave)


def run_tool(
    main: Callable[[flags.FlagValues], int | None],
    description: str,
    define: Define,
    crash_status: int = 1,
) -> None:
    """Runs `main(values)` of a command that trains nothing and has flags of its own;
    then exits.

    Bad input ends the program with exit code 2 and one line on stderr; a fault of the
    program itself with its traceback and exit code `crash_status`.
    """
    _run(
        lambda: main(parse_values(sys.argv, define)), description, define, crash_status
    )


def _run(
    body: Callable[[], int | None],
    description: str,
    define: Define,
    crash_status: int,
    leave: Callable[[int], None] = sys.exit,
) -> None:
    if any(argument in ("-h", "-help", "--help") for argument in sys.argv[1:]):
        print(help_text(description, define))
        sys.exit(0)
    # What was imported stays: searching it for garbage, now and on the way out, costs
    # 0.3 s.
    gc.freeze()
    try:
        status = body()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            print(
                f"error: cannot write {error.filename or 'a file'}: {error.strerror}; "
                "make room",
                file=sys.stderr,
            )
            status = BAD_INPUT
        else:
            traceback.print_exc()
            status = crash_status
    gc.freeze()
    leave(status or 0)


def _experiment_and(define_more: Define | None) -> Define:
    def define(values: flags.FlagValues) -> None:
        parsing.define_flags(values)
        if define_more:
            define_more(values)

    return define

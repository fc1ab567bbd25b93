"""The flags that say who is measured, and how often."""

from absl import flags

from parity.speed.competitors import NAMES


def define(values: flags.FlagValues) -> None:
    """Defines `--competitors`, `--rounds` and `--most_seconds`."""
    flags.DEFINE_list(
        "competitors",
        list(NAMES),
        f"Who trains: some of {', '.join(NAMES)}.",
        flag_values=values,
    )
    define_rounds(values)


def define_rounds(values: flags.FlagValues) -> None:
    """Defines `--rounds` and `--most_seconds`."""
    flags.DEFINE_integer(
        "rounds",
        3,
        "Runs of each competitor that count.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "most_seconds",
        600.0,
        "A run that takes longer is ended, and the table says so.",
        lower_bound=1.0,
        flag_values=values,
    )

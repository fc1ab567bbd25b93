"""The flags that say in which way plain PyTorch trains."""

from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues, variants: Sequence[str], default: str) -> None:
    """Defines `--variant`, one of some, and `--threads`."""
    flags.DEFINE_string(
        "variant",
        default,
        f"How to train. One of: {', '.join(variants)}.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "threads",
        0,
        "Threads of a CPU; 0: torch's default.",
        lower_bound=0,
        flag_values=values,
    )

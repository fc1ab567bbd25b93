"""Differences that no switch holds: other values of flags, for the torch side alone.

A wrong name is worse than none, and here every switch that is named is wrong, unless
it is the same computation to the bit; so is a measured figure that is not the flag's.
"""

from collections.abc import Iterator, Sequence

from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment
from parity.mutations.bases import BASES
from parity.mutations.plan import Mutant
from parity.quantities import PARTS
from parity.semantics.switch import Switch

DIFFERENCES: dict[str, tuple[str, ...]] = {
    "mlp": (
        "--leaky_relu_alpha=0.0100001",
        "--leaky_relu_alpha=0.0101",
        "--leaky_relu_alpha=0.015",
        "--dropout_rates=0.2,0.21",
        "--learning_rate=0.00100001",
        "--warmup_steps=5",
        "--adam_b1=0.90001",
        "--adam_b1=0.8",
        "--adam_b2=0.99901",
        "--adam_b2=0.995",
        "--adam_eps=1.01e-8",
        "--adam_eps=2e-8",
        # Moves weights by about as much as rounding them to a half format would.
        "--adam_eps=0.0001",
        "--l2=0.0101",
        "--l2=0.015",
        "--clip_norm=0.200002",
        "--clip_norm=0.21",
        "--seed=1",
    ),
    "normalized": (
        "--weight_decay=0.10001",
        "--weight_decay=0.2",
        "--adam_b1=0.91",
        "--adam_b2=0.9991",
        "--adam_eps=1.5e-8",
        "--label_smoothing=0.01",
        "--accumulation_steps=3",
        "--activation=tanh",
        "--l1=0.0001",
    ),
    "regression": (
        "--momentum=0.90001",
        "--momentum=0.8",
        "--l2=0.0101",
        "--l1=0.001",
        "--activation=tanh",
    ),
    "cnn": (
        "--rmsprop_decay=0.9901",
        "--rmsprop_decay=0.95",
        "--rmsprop_eps=2e-8",
        "--label_smoothing=0.1001",
        "--label_smoothing=0.05",
    ),
    "resnet": (
        "--momentum=0.9009",
        "--label_smoothing=0.02",
        "--l2=0.0001",
        "--learning_rate=0.101",
    ),
    "lstm": (
        "--adagrad_eps=2e-10",
        "--adagrad_eps=0.001",
        "--adagrad_initial=0.01",
        "--l2=0.001",
    ),
    "gru": (
        "--momentum=0.91",
        "--dropout_rates=0.2,0.25",
        "--warmup_steps=5",
        "--min_learning_rate=0.001",
    ),
    "transformer": (
        "--num_heads=1",
        "--adam_b2=0.9985",
        "--weight_decay=0.0101",
        "--clip_norm=0.1001",
        "--label_smoothing=0.001",
        "--dropout_rates=0.1",
    ),
    "overflow": (
        "--hysteresis=3",
        "--static_loss_scale=2097152",
        "--initial_scale_power=21",
        "--loss_scale_window=2",
        "--consecutive_hysteresis",
        "--warmup_steps=21",
        "--l2=0.001",
    ),
    "growth": ("--loss_scale_window=1000", "--initial_scale_power=5"),
}
"""Base -> flags that one difference each is made of."""

LOSS_SCALING = (
    "hysteresis",
    "consecutive_hysteresis",
    "loss_scale_window",
    "initial_scale_power",
    "static_loss_scale",
)
"""Flags without an effect outside of FP16."""


def differences(base: str, experiment: Experiment) -> Iterator[Mutant]:
    """Yields every difference to plant in a base, at the precision of its experiment.

    Each acts from the first step on and is named after its flag.

    Args:
      base: name of the base.
      experiment: its experiment.
    """
    for flag in DIFFERENCES.get(base, ()):
        name = flag.removeprefix("--")
        if experiment.precision == "fp16" or name.split("=")[0] not in LOSS_SCALING:
            yield Mutant((name,), "", _with(base, experiment, flag), 0)


def as_switch(difference: Mutant) -> Switch:
    """Returns the switch that the catalogue lacks: the replay with the same flags."""
    return Switch(
        difference.name,
        PARTS,
        f"--{difference.name}",
        "planted",
        applies=lambda experiment: True,
        experiment=lambda experiment: difference.experiment,
    )


def _with(base: str, experiment: Experiment, flag: str) -> Experiment:
    arguments: Sequence[str] = (
        "mutations",
        *BASES[base],
        f"--precision={experiment.precision}",
        f"--name={experiment.name}",
        flag,
    )
    return command_line.parse(arguments, experiment.precision)[0]

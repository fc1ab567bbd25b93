"""Which faults are planted in which experiment, and how."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.consistency import RECURRENT
from parity.semantics import SWITCHES
from parity.semantics.switch import Switch

FIRST_STEP = 2
"""The step from which on planted faults act."""
STEPS = 7
"""Steps to record: one epoch and a half of each base."""

FROM_THE_START = ("masters_not_rounded", "not_shuffled", "same_order_every_epoch")
"""Faults of the torch side that act from step 0 on."""

ONCE = ("weights_reloaded", "moments_reset")
"""Faults of the torch side that come right before one step and not again."""


class Mutant(NamedTuple):
    """A run with something planted.

    Attributes:
      switches: what is planted, in the catalogue's order.
      fault: of `torch_ref.planted`; empty: the experiment says it all.
      experiment: that the torch side is given.
      first_step: from which on it acts.
    """

    switches: tuple[str, ...]
    fault: str
    experiment: Experiment
    first_step: int

    @property
    def name(self) -> str:
        """Of what is planted."""
        return "+".join(self.switches)

    @property
    def steps(self) -> range:
        """Those that it acts on."""
        return range(
            self.first_step, self.first_step + 1 if self.fault in ONCE else STEPS
        )


class Upstream(NamedTuple):
    """Faults of DeepSpeed itself, which a flag brings about.

    Attributes:
      switches: what they are.
      applies: to which experiments.
      experiment: the flags that bring them about.
    """

    switches: tuple[str, ...]
    applies: Callable[[Experiment], bool]
    experiment: Callable[[Experiment], Experiment]


def mutants(experiment: Experiment) -> Iterator[Mutant]:
    """Every fault that can be planted in an experiment."""
    for upstream in UPSTREAM:
        if upstream.applies(experiment):
            yield Mutant(upstream.switches, "", upstream.experiment(experiment), 0)
    for switch in SWITCHES.values():
        if _can_be_planted(switch, experiment):
            yield _planted(switch, experiment)


def _can_be_planted(switch: Switch, experiment: Experiment) -> bool:
    """torch's recurrent kernels cannot be had in another format."""
    in_reach = switch.name != "computed_in_bf16" or experiment.model not in RECURRENT
    return switch.name not in ONLY_UPSTREAM and in_reach and switch.applies(experiment)


def _planted(switch: Switch, experiment: Experiment) -> Mutant:
    """By changed flags where they say it all, else in the code of the torch side."""
    if switch.experiment and not switch.patches and switch.name not in BY_CODE:
        return Mutant((switch.name,), "", switch.experiment(experiment), 0)
    return Mutant(
        (switch.name,),
        switch.name,
        experiment,
        0 if switch.name in FROM_THE_START else FIRST_STEP,
    )


def _is_adam_at_stage_0(precision: str) -> Callable[[Experiment], bool]:
    return lambda e: e.precision == precision and e.optimizer in ("adam", "adamw")


BY_CODE = ("computed_in_bf16",)
"""Planted in the code although a flag would do: the flag also rounds the masters."""
ONLY_UPSTREAM = ("loss_not_scaled", "init_step_counted", "growth_step_halved")
UPSTREAM = (
    Upstream(
        ("init_step_counted", "loss_not_scaled"),
        _is_adam_at_stage_0("fp16"),
        lambda e: e.replace(zero_stage=0),
    ),
    Upstream(
        ("init_step_counted",),
        _is_adam_at_stage_0("bf16"),
        lambda e: e.replace(zero_stage=0),
    ),
    Upstream(
        ("growth_step_halved",),
        lambda e: e.precision == "fp16" and e.loss_scale_window < STEPS,
        lambda e: e,
    ),
)

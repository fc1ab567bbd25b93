"""Which faults are planted in which experiment, and how."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxnn.experiment.catalogue import RECURRENT
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.traits import is_adam, is_half
from parity.semantics import SWITCHES
from parity.semantics.switch import Switch

# Two clean steps first: a fault must be located at the step where it begins, and some
# faults need a previous step.
FIRST_STEP = 2
"""First step that a planted fault acts on, if nothing else is said."""

STEPS = 7
"""Steps to record. Where an epoch has 4 or 5 steps, as in most bases, this reaches the
second, whose order of samples some faults change."""

FROM_THE_START = ("masters_not_rounded", "not_shuffled", "same_order_every_epoch")
"""Faults of the torch side that act from step 0."""

ONCE = ("weights_reloaded", "moments_reset")
"""Faults of the torch side that happen right before one step and not again."""

MANY_MICROBATCHES = 128
"""Of a base that is made to show DeepSpeed's sum of them (MISMATCHES D23)."""


class Mutant(NamedTuple):
    """A run with something planted.

    Attributes:
      switches: names of the switches that reproduce it in the replay, in the order of
        the catalogue.
      fault: fault of `torch_ref.planted`; empty if flags alone plant it.
      experiment: experiment that the torch side runs.
      first_step: first step it acts on, from 0.
    """

    switches: tuple[str, ...]
    fault: str
    experiment: Experiment
    first_step: int

    @property
    def name(self) -> str:
        """Names of the switches, joined by "+"."""
        return "+".join(self.switches)

    @property
    def steps(self) -> range:
        """Steps it acts on."""
        end = self.first_step + 1 if self.fault in ONCE else STEPS
        return range(self.first_step, end)


class Upstream(NamedTuple):
    """Faults of DeepSpeed itself, brought about by flags.

    Attributes:
      switches: names of the switches that reproduce them in the replay.
      applies: returns True for experiments that can have them.
      experiment: returns the experiment with the flags that bring them about.
    """

    switches: tuple[str, ...]
    applies: Callable[[Experiment], bool]
    experiment: Callable[[Experiment], Experiment]


def mutants(experiment: Experiment) -> Iterator[Mutant]:
    """Yields every fault that can be planted in an experiment."""
    for upstream in UPSTREAM:
        if upstream.applies(experiment):
            yield Mutant(upstream.switches, "", upstream.experiment(experiment), 0)
    for switch in SWITCHES.values():
        if _can_be_planted(switch, experiment):
            yield _planted(switch, experiment)


def _can_be_planted(switch: Switch, experiment: Experiment) -> bool:
    # The torch side cannot run recurrent kernels in another dtype.
    if switch.name == "computed_in_bf16" and experiment.model in RECURRENT:
        return False
    return switch.name not in ONLY_UPSTREAM and switch.applies(experiment)


def _planted(switch: Switch, experiment: Experiment) -> Mutant:
    """Plants by flags where they say it all, else in the code of the torch side."""
    names = (switch.name,)
    if switch.experiment and not switch.patches and switch.name not in BY_CODE:
        return Mutant(names, "", switch.experiment(experiment), 0)
    first_step = 0 if switch.name in FROM_THE_START else FIRST_STEP
    return Mutant(names, switch.name, experiment, first_step)


def _is_adam(precision: str) -> Callable[[Experiment], bool]:
    return lambda e: e.precision == precision and is_adam(e)


def _without_zero(experiment: Experiment) -> Experiment:
    return experiment.replace(zero_stage=0)


BY_CODE = ("computed_in_bf16",)
"""Faults planted in code although a flag exists, which also rounds the masters."""

ONLY_UPSTREAM = (
    "loss_not_scaled",
    "init_step_counted",
    "growth_step_halved",
    "accumulated_in_half",
)
"""Faults of DeepSpeed itself, which no code of this project plants."""

UPSTREAM = (
    # Without ZeRO, FP16_Optimizer makes an update of zero gradients before training and
    # does not scale the loss (MISMATCHES D1, D2).
    Upstream(("init_step_counted", "loss_not_scaled"), _is_adam("fp16"), _without_zero),
    # BF16 has no loss scale, so only the first of the two shows.
    Upstream(("init_step_counted",), _is_adam("bf16"), _without_zero),
    # Any run in which the loss scale doubles has this one (MISMATCHES D3).
    Upstream(
        ("growth_step_halved",),
        lambda e: e.precision == "fp16" and e.loss_scale_window < STEPS,
        lambda e: e,
    ),
    # A few microbatches lose no more in any dtype than they were rounded by before.
    Upstream(
        ("accumulated_in_half",),
        lambda e: is_half(e) and e.accumulation_steps >= MANY_MICROBATCHES,
        lambda e: e,
    ),
)

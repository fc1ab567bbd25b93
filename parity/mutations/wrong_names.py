"""Which names in a judgement are right, where it is known what was planted."""

from collections.abc import Callable, Mapping, Sequence

from jaxnn.experiment.flags.config import Experiment
from parity.judging.recording import Judgement
from parity.measured.difference import Difference
from parity.measured.form import UNRECOGNISED
from parity.mutations.bench import JAX, Bench
from parity.mutations.plan import STEPS
from parity.quantities import PARTS
from parity.semantics.switch import Switch

NEAR = 0.1
"""A measured figure is right within this share of the way from one's own to it."""

SAYS: Mapping[str, Mapping[str, Callable[[Experiment], float]]] = {
    "adam_b1": {"first moment decay": lambda e: e.adam_b1},
    "adam_b2": {
        "second moment decay": lambda e: e.adam_b2,
        "second moment gain": lambda e: 1 - e.adam_b2,
    },
    "adam_eps": {"eps": lambda e: e.adam_eps},
    "rmsprop_eps": {"eps": lambda e: e.rmsprop_eps},
    "adagrad_eps": {"eps": lambda e: e.adagrad_eps},
    "rmsprop_decay": {
        "second moment decay": lambda e: e.rmsprop_decay,
        "second moment gain": lambda e: 1 - e.rmsprop_decay,
    },
    "momentum": {
        "first moment decay": lambda e: e.momentum,
        # What is left of the gradient where the momentum is an average.
        "dampening": lambda e: e.momentum if e.optimizer == "ema_momentum" else 0.0,
    },
    "l2": {"decay": lambda e: e.l2},
    "weight_decay": {"decay": lambda e: e.weight_decay},
    "clip_norm": {
        "clip norm": lambda e: e.clip_norm,
        "gradient factor": lambda e: e.clip_norm,
        "clipping": lambda e: e.clip_norm,
    },
}
"""Flag -> kind of a measured difference that says it -> the figure, of an experiment.
"""


SHARES = ("gradient factor",)
"""Kinds whose figure is a share of one's own."""


def named(judgement: Judgement) -> list[tuple[Switch, ...]]:
    """Returns the sets of switches that a judgement says would explain it."""
    found = judgement.explanations or []
    return [e.switches for e in found if e.explains and not e.is_measured]


def wrong_switches(bench: Bench, judgement: Judgement, planted: Switch) -> list[str]:
    """Returns the explanations that are not the planted difference to the bit.

    Args:
      bench: recorded base.
      judgement: of the run with the difference.
      planted: the difference, as a switch.
    """
    return [
        " + ".join(switch.name for switch in switches)
        for switches in named(judgement)
        if not is_same(bench, switches, planted)
    ]


def is_same(bench: Bench, switches: tuple[Switch, ...], planted: Switch) -> bool:
    """Returns True if switches make of every step what the planted one makes of it."""
    judge = bench.judge(JAX)
    # Replayed as a whole on both sides: what was recorded is only nearly the replay.
    switches = tuple(switch._replace(parts=PARTS) for switch in switches)
    for number in range(min(STEPS, bench.num_recorded(JAX))):
        mine = judge.enacted(number, switches)
        theirs = judge.enacted(number, (planted,))
        if any(mine[name].tobytes() != theirs[name].tobytes() for name in theirs):
            return False
    return True


def measured(judgement: Judgement) -> Sequence[Difference]:
    """Returns the measured differences that a judgement shows the figures of."""
    differences = judgement.found.differences if judgement.found else []
    return [one for one in differences if one.kind != UNRECOGNISED]


def wrong_figures(
    shown: Sequence[Difference], flag: str, own: Experiment, planted: Experiment
) -> list[str]:
    """Returns the sentences of measured differences that do not say what was planted.

    Args:
      shown: measured differences.
      flag: name of the flag that differs.
      own: experiment of the replay.
      planted: experiment of the recording.
    """
    says = SAYS.get(flag, {})
    return [
        one.sentence
        for one in shown
        if one.kind not in says
        or not _is_near(one, says[one.kind](own), says[one.kind](planted))
    ]


def _is_near(shown: Difference, own: float, planted: float) -> bool:
    figure = shown.recorded * (own if shown.kind in SHARES else 1.0)
    return bool(abs(figure - planted) <= NEAR * abs(planted - own))

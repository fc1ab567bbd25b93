"""Diseases that the learning curves show, and the rates beside them."""

import numpy as np

from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding

FEWEST_EPOCHS = 5
"""Below, a curve says nothing."""
NO_BETTER = 0.95
"""Of the loss of guessing: what has not fallen below it has learned nothing."""
OVERSHOT = 3.0
"""Times the loss of guessing, or of the first epoch, that no network in order costs."""
OVERFITTED = 1.25
"""Held-out loss at the end over its best."""
POOR = 0.6
"""Of the loss of guessing: what comes to rest above it fits little."""
AT_REST = 0.02
STILL = 0.01
"""Largest change of a weight, or of all over their norm, that changes no network."""
LARGE_UPDATE = 0.3
"""Of the weights, in one step."""
FEW_STEPS = 100


def level(losses: np.ndarray) -> float:
    """Returns where a curve ends: the median of its last tenth, 3 epochs at least."""
    return float(np.median(losses[-max(len(losses) // 10, 3) :]))


def is_judged(evidence: Evidence) -> bool:
    """True if there are epochs enough, all of them with a loss."""
    losses = evidence.train_loss
    return len(losses) >= FEWEST_EPOCHS and bool(np.isfinite(losses).all())


def is_stuck(evidence: Evidence) -> bool:
    """True if the training loss has not fallen, or not below that of guessing."""
    if not is_judged(evidence) or _is_perfect(evidence):
        return False
    losses = evidence.train_loss
    guess = _guess(evidence)
    if guess:
        return level(losses) > NO_BETTER * guess
    return level(losses) >= float(np.median(losses[:3])) > 0


def overshoots(evidence: Evidence) -> bool:
    """True if the loss was far above that of guessing, or rose far above its start."""
    if not is_judged(evidence):
        return False
    losses = evidence.train_loss
    guess = _guess(evidence)
    if level(losses) > OVERSHOT * losses[0] > 0:
        return True
    # What falls from far above may only have begun there.
    is_high = bool(guess and level(losses) > OVERSHOT * guess)
    return is_high and level(losses) > 0.5 * losses[0]


def rate_findings(evidence: Evidence) -> list[Finding]:
    """Returns whether rate or batch keep the loss from falling."""
    for rule in (_too_high, _too_few_steps, _too_low):
        if finding := rule(evidence):
            return [finding]
    return []


def stuck_findings(evidence: Evidence) -> list[Finding]:
    """Returns that the loss does not fall, where nothing says why."""
    if not is_stuck(evidence):
        return []
    end = level(evidence.train_loss)
    if evidence.experiment.loss == "perceptron":
        return [
            Finding(
                "not decreasing",
                f"the loss of the perceptron does not come to rest: {end:.4g} at the "
                f"end; it does only where a line separates the classes; try "
                "--model=mlp",
            )
        ]
    guess = _guess(evidence)
    beside = f", guessing costs {guess:.4g}" if guess else ""
    more = "" if evidence.diagnostics else "; --diagnose shows more"
    return [
        Finding(
            "not decreasing",
            f"the training loss begins at {evidence.train_loss[0]:.4g} and ends at "
            f"{end:.4g}{beside}; nothing here says why: try another --learning_rate, "
            f"--model or --activation{more}",
        )
    ]


def fit_findings(evidence: Evidence) -> list[Finding]:
    """Returns whether the network fits the data too closely, or too little."""
    if not is_judged(evidence) or is_stuck(evidence) or overshoots(evidence):
        return []
    found = _overfitting(evidence) or _underfitting(evidence)
    return [found] if found else []


def _too_high(evidence: Evidence) -> Finding | None:
    """A rate that is too high throws the weights about: by much in every step."""
    if not (overshoots(evidence) or is_stuck(evidence)) or _is_perceptron(evidence):
        return None
    losses = evidence.train_loss
    rate = evidence.experiment.learning_rate
    ratio = _update_ratio(evidence)
    if ratio and ratio > LARGE_UPDATE:
        return Finding(
            "rate too high",
            f"a step changes the weights by {ratio:.0%}, and the loss ends at "
            f"{level(losses):.4g}; lower --learning_rate={rate:g}",
        )
    guess = _guess(evidence)
    began = _first_update(evidence)
    if guess and began > LARGE_UPDATE / 3 and losses[0] > OVERSHOT * guess:
        return Finding(
            "rate too high",
            f"a step of the first epoch changes the weights by {began:.0%}, and that "
            f"epoch costs {losses[0]:.4g}, guessing {guess:.4g}; lower "
            f"--learning_rate={rate:g}",
        )
    # Without a look at the updates: that the loss rose was the steps' doing.
    if level(losses) > OVERSHOT * losses[0] > 0:
        return Finding(
            "rate too high",
            f"the training loss rose from {losses[0]:.4g} to {level(losses):.4g}; "
            f"lower --learning_rate={rate:g}",
        )
    if overshoots(evidence):
        return Finding(
            "loss too high",
            f"the training loss ends at {level(losses):.4g}, guessing costs "
            f"{_guess(evidence):.4g}; rate or first parameters are too large: lower "
            f"--learning_rate={rate:g}, or try another --initializer",
        )
    return None


def _too_few_steps(evidence: Evidence) -> Finding | None:
    """A batch that is most of the data leaves few steps."""
    facts = evidence.facts
    batch = evidence.experiment.batch_size
    if facts is None or 2 * batch < facts.samples or evidence.steps >= FEW_STEPS:
        return None
    if not _is_falling(evidence):
        return None
    return Finding(
        "batch too large",
        f"--batch_size={batch} of {facts.samples} samples leaves "
        f"{evidence.steps} steps in {len(evidence.train_loss)} epochs, and the loss "
        f"was still falling, {level(evidence.train_loss):.4g} at the end; lower "
        "--batch_size, or raise --epochs",
    )


def _too_low(evidence: Evidence) -> Finding | None:
    """A rate that is too low leaves the weights where they were."""
    if not is_judged(evidence):
        return None
    experiment = evidence.experiment
    rate = f"--learning_rate={experiment.learning_rate:g}"
    moved = _moved(evidence)
    if moved is not None and moved < STILL and _is_poor(evidence):
        return Finding(
            "rate too low",
            f"all steps together change the weights by at most {moved:.1g} of their "
            f"norm, and the loss ends at {level(evidence.train_loss):.4g}; raise "
            f"{rate}",
        )
    losses = evidence.train_loss
    if _is_falling(evidence) and losses[-1] > 0.7 * losses[0]:
        per_epoch = (losses[0] - losses[-1]) / (len(losses) - 1)
        return Finding(
            "rate too low",
            f"the training loss falls as slowly at the end as at the start, by "
            f"{per_epoch:.2g} an epoch, from {losses[0]:.4g} to {losses[-1]:.4g}; "
            f"raise {rate}, or --epochs",
        )
    return None


def _moved(evidence: Evidence) -> float | None:
    """Returns a bound on how far all steps have moved the weights, over their norm."""
    found = evidence.diagnostics
    if found is None:
        return None
    ratios = found.measured["update_ratio"][:, 0]
    # Between two diagnosed steps the larger of a few is taken for all.
    if not np.isfinite(ratios).all():
        return None
    return float(ratios.max()) * evidence.steps


def _update_ratio(evidence: Evidence) -> float | None:
    found = evidence.diagnostics
    ratios = found.measured["update_ratio"][:, 0] if found else np.zeros(0)
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else None


def _first_update(evidence: Evidence) -> float:
    """Returns the update ratio of the first diagnosed step, 0 if it is not known."""
    found = evidence.diagnostics
    first = found.measured["update_ratio"][0, 0] if found else np.nan
    return float(first) if np.isfinite(first) else 0.0


def _is_falling(evidence: Evidence) -> bool:
    """True if the loss falls in every epoch, in the later half as in the earlier."""
    if not is_judged(evidence):
        return False
    losses = evidence.train_loss
    half = len(losses) // 2
    early, late = losses[0] - losses[half], losses[half] - losses[-1]
    epochs = half, len(losses) - 1 - half
    is_steady = bool((np.diff(losses) < 0).all())
    return is_steady and late / epochs[1] > 0.5 * early / epochs[0] > 0


def _overfitting(evidence: Evidence) -> Finding | None:
    split, held_out = evidence.held_out
    losses = evidence.train_loss
    # Early stopping has kept the best network.
    if evidence.experiment.patience or len(losses) < 2 * FEWEST_EPOCHS:
        return None
    best = _best(held_out)
    end = level(held_out)
    guess = _guess(evidence)
    is_worse = end > OVERFITTED * held_out[best] and end > 1.5 * level(losses)
    still_learns = level(losses) < 0.9 * losses[max(best - 1, 0) : best + 2].max()
    is_small = guess and end < 0.02 * guess
    if not (is_worse and still_learns) or is_small or best > 0.8 * len(losses):
        return None
    return Finding(
        "overfitting",
        f"the {split} loss is {held_out[best]:.3f} at epoch {best + 1} and "
        f"{held_out[-1]:.3f} at {len(losses)}, while the training loss falls to "
        f"{level(losses):.3g}; try --patience=10 with --validation_fraction=0.1, more "
        "--dropout_rates, --l2 or --weight_decay",
    )


def _underfitting(evidence: Evidence) -> Finding | None:
    split, held_out = evidence.held_out
    losses = evidence.train_loss
    guess = _guess(evidence)
    quarter = max(len(losses) // 4, 2)
    earlier = float(np.median(losses[-2 * quarter : -quarter]))
    end = level(losses)
    is_at_rest = abs(end - earlier) < AT_REST * earlier
    if not guess or end < POOR * guess or not is_at_rest:
        return None
    if level(held_out) > 1.3 * end or not is_judged(evidence):
        return None
    return Finding(
        "underfitting",
        f"the training loss comes to rest at {end:.4g}, {end / guess:.0%} of what "
        f"guessing costs, and the {split} loss at {level(held_out):.4g}: the network "
        f"fits little of these data; {_freer(evidence)}",
    )


def _freer(evidence: Evidence) -> str:
    """Returns what would let the network fit more."""
    experiment = evidence.experiment
    held = [
        f"--{name}={getattr(experiment, name):g}"
        for name in ("l1", "l2", "weight_decay")
        if getattr(experiment, name)
    ]
    if experiment.dropout_rates:
        held.append(f"--dropout_rates={','.join(map(str, experiment.dropout_rates))}")
    if held:
        return f"lower {' and '.join(held)}, or give it more units"
    return "give it more units or layers, or other inputs"


def _best(losses: np.ndarray) -> int:
    """Returns the epoch, from 0, of the best loss that its neighbours bear out."""
    smooth = np.array(
        [np.median(losses[max(i - 1, 0) : i + 2]) for i in range(len(losses))]
    )
    window = slice(max(int(smooth.argmin()) - 1, 0), int(smooth.argmin()) + 2)
    return window.start + int(losses[window].argmin())


def _is_poor(evidence: Evidence) -> bool:
    guess = _guess(evidence)
    end = level(evidence.train_loss)
    return end > POOR * guess if guess else end > 0.9 * evidence.train_loss[0]


def _is_perfect(evidence: Evidence) -> bool:
    """True if the run has nothing left to learn."""
    accuracy = evidence.metrics.get("test_accuracy", np.zeros(1))[-1]
    return bool(accuracy == 1 or level(evidence.train_loss) == 0)


def _is_perceptron(evidence: Evidence) -> bool:
    # Its weights start at 0, and any rate gives the same lines.
    return evidence.experiment.loss == "perceptron"


def _guess(evidence: Evidence) -> float | None:
    return evidence.facts.guess if evidence.facts else None

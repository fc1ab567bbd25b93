"""Optimizer showdown: optimizers by schedule, over a ladder of rates."""

import math

import numpy as np

from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

SCHEDULES = {
    "constant": ("--schedule=constant",),
    "cosine": ("--schedule=cosine",),
    "warm-up, cosine": ("--schedule=warmup_cosine", "--warmup_steps=36"),
}
ADAMW = ("--optimizer=adamw", "--weight_decay=0.05")
"""AdamW, which is Adam without a decay; no other optimizer takes one."""
REACHED = 0.01
"""Training loss whose first epoch measures how fast an optimizer is."""

MARGIN = 0.06
"""Of accuracy, drawn below the worst that is reached."""

Found = dict[tuple[str, str], list[Run]]
"""(schedule, optimizer) -> runs."""


def measure(bench: Bench) -> Findings:
    """Trains every optimizer at every rate; shows each at its best."""
    found = {
        (schedule, optimizer): of
        for schedule in list(SCHEDULES)[: 1 if bench.is_reduced else None]
        for optimizer, of in runs.split(trained(bench, schedule), "optimizer").items()
    }
    best = {
        key: runs.best_setting(of, "learning_rate", "train_loss")
        for key, of in found.items()
    }
    sections = [
        _ladder(found),
        _curves(best, "train_loss", "training loss", "log"),
        _curves(best, "test_accuracy", "test accuracy", "linear"),
        _table(best),
    ]
    return Findings(sections, _claims(found, best, bench.experiment().dataset))


def trained(bench: Bench, schedule: str) -> list[Run]:
    """Returns the runs of a schedule, those of AdamW with a decay of its own."""
    found = bench.swept(schedule, *SCHEDULES[schedule])
    others = bench.grid().partition(";")[2]
    adamw = ("--grid=optimizer=adamw;" + others, *ADAMW, *SCHEDULES[schedule])
    return found + ([] if bench.is_reduced else bench.swept(f"{schedule}, w", *adamw))


def _ladder(found: Found) -> str:
    schedules = list(dict.fromkeys(schedule for schedule, _ in found))
    figure, panels = figures.grid(len(schedules), sharey=True)
    for axes, schedule in zip(panels, schedules):
        for number, (optimizer, of) in enumerate(_of(found, schedule).items()):
            by_rate = runs.split(of, "learning_rate")
            losses = [np.mean(runs.kept(r, "train_loss")) for r in by_rate.values()]
            style = figures.stroke(number, 1)
            axes.plot(list(by_rate), losses, label=optimizer, **style)
        axes.set(title=schedule, xlabel="learning rate", xscale="log", yscale="log")
    panels[0].set_ylabel("final training loss")
    figures.legend_below(figure, panels[0], 7)
    return figures.picture(
        figure, "Final training loss over the rate, mean over seeds, by schedule."
    )


def _curves(best: Found, column: str, title: str, scale: str) -> str:
    schedules = list(dict.fromkeys(schedule for schedule, _ in best))
    figure, panels = figures.grid(len(schedules), sharey=True)
    for axes, schedule in zip(panels, schedules):
        of = _of(best, schedule)
        curves.draw(axes, {o: runs.curves(of[o], column) for o in of})
        axes.set(title=schedule, xlabel="epoch", yscale=scale)
        figures.whole_numbers(axes)
    panels[0].set_ylabel(title)
    if scale == "linear":
        # The first epochs, far below, would flatten what counts.
        worst = min(runs.kept(of, column).min() for of in best.values())
        panels[0].set_ylim(bottom=worst - MARGIN)
    figures.legend_below(figure, panels[0], 7)
    return figures.picture(
        figure,
        f"{title.capitalize()} of each optimizer at its best rate: mean over seeds, "
        "and from the least to the largest.",
    )


def _of(found: Found, schedule: str) -> dict[str, list[Run]]:
    return {o: of for (s, o), of in found.items() if s == schedule}


def _table(best: Found) -> str:
    head = (
        *("schedule", "optimizer", "best rate", "final training loss"),
        *("final test accuracy", "best test accuracy", f"epochs to loss {REACHED}"),
    )
    ranked = sorted(best, key=lambda key: np.mean(runs.kept(best[key], "train_loss")))
    return tables.table(head, [_row(key, best[key]) for key in ranked], texts=2)


def _row(key: tuple[str, str], of: list[Run]) -> list[str]:
    accuracy = runs.curves(of, "test_accuracy")
    epochs = epochs_to(runs.curves(of, "train_loss"), REACHED)
    return [
        *key,
        f"{of[0].settings['learning_rate']:g}",
        tables.spread(runs.kept(of, "train_loss")),
        tables.spread(accuracy[:, -1]),
        tables.spread(accuracy.max(axis=1)),
        "never" if math.isinf(epochs) else f"{epochs:g}",
    ]


def epochs_to(losses: np.ndarray, bound: float) -> float:
    """Returns the median over runs of the first epoch below a loss; inf: never.

    Args:
      losses: [runs, epochs].
      bound: loss to fall below.
    """
    below = losses < bound
    first = np.where(below.any(axis=1), below.argmax(axis=1) + 1.0, np.inf)
    return float(np.median(first))


def _claims(found: Found, best: Found, dataset: str) -> list[Claim]:
    momentum = _loss(found, "constant", "momentum", 0.01)
    ratio = momentum / _loss(found, "constant", "sgd", 0.1)
    hot = [_loss(found, schedule, "adam", 0.03) for schedule in SCHEDULES]
    claims = [
        Claim(
            "momentum of 0.9 is SGD at ten times the rate: training loss of momentum "
            "at 0.01 over SGD's at 0.1, or the other way round",
            *(max(ratio, 1 / ratio), "<=", 1.25),
        ),
        Claim(
            "a rate too high to be constant is good if it falls: Adam's training loss "
            "at 0.03 under a cosine over that at a constant rate",
            *(hot[1] / hot[0], "<=", 0.1),
            of_full_size=True,
        ),
    ]
    if dataset != "digits":
        return claims
    worst = min(np.mean(runs.kept(of, "test_accuracy")) for of in best.values())
    reached = Claim(
        "each optimizer at its best rate ends at this test accuracy",
        *(float(worst), ">=", 0.95),
        of_full_size=True,
    )
    return [reached, *claims]


def _loss(found: Found, schedule: str, optimizer: str, rate: float) -> float:
    by_rate = runs.split(found.get((schedule, optimizer), []), "learning_rate")
    return runs.mean(by_rate.get(rate), "train_loss")


LAB = Lab(
    "Optimizer showdown",
    "Seven optimizers train the same network from the same seeds, each over a ladder "
    "of rates and shown at its best. Tuned this way they end close to each other: the "
    "rate matters more than the rule, and the rules differ in how wide the ladder is.",
    measure,
    reduced=(
        "--grid=optimizer=sgd,momentum; learning_rate=0.01,0.1; seed=0,1",
        "--epochs=4",
    ),
    with_data=(
        "--dataset=cifar10",
        "--model=cnn",
        "--channels=16,32",
        "--epochs=5",
        "--batch_size=128",
    ),
)

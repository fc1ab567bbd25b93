"""The rate ladder: too low, right, too high, diverged."""

import math

from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

GUESS = math.log(10)
"""Cross-entropy of ten classes without any knowledge."""

Found = dict[float, list[Run]]
"""Rate -> runs."""


def measure(bench: Bench) -> Findings:
    """Trains at every rate."""
    found = runs.split(bench.swept("sweep"), "learning_rate")
    return Findings([_picture(found), _table(found)], _claims(found))


def _picture(found: Found) -> str:
    figure, (axes, ladder) = figures.grid(2, size=(5.8, 3.6))
    alive = {f"{r:g}": of for r, of in found.items() if not of[0].diverged}
    curves.draw(axes, {r: runs.curves(of, "train_loss") for r, of in alive.items()})
    axes.axhline(GUESS, color="0.6", linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log")
    figures.whole_numbers(axes)
    finals = [runs.kept(of, "train_loss").mean() for of in found.values()]
    ladder.plot(list(found), finals, "o-", color="black")
    for rate, final in zip(found, finals):
        if math.isnan(final):
            ladder.axvline(rate, color="0.4", linestyle=":")
            ladder.text(rate, GUESS, "diverged ", ha="right", rotation=90, va="top")
    ladder.axhline(GUESS, color="0.6", linewidth=0.8)
    ladder.set(xlabel="learning rate", xscale="log", yscale="log")
    ladder.set_ylabel("final training loss")
    figures.legend_below(figure, axes, len(found))
    return figures.picture(
        figure,
        "Training loss at each rate: mean over seeds, and from the least to the "
        "largest; the gray line is the loss of a blind guess.",
    )


def verdict(of: list[Run], best: float) -> str:
    """Returns what a rate is: too low, right, too high or diverged.

    Args:
      of: its runs.
      best: rate with the least final loss.
    """
    if any(run.diverged for run in of):
        return "diverged"
    rate = of[0].settings["learning_rate"]
    if rate == best:
        return "right"
    return "too low" if rate < best else "too high"


def _best(found: Found) -> float:
    (run, *_) = runs.best_setting(
        [run for of in found.values() for run in of], "learning_rate", "train_loss"
    )
    return run.settings["learning_rate"]


def _table(found: Found) -> str:
    best = _best(found)
    rows = []
    for rate, of in found.items():
        steps = [run.record.step for run in of if run.diverged]
        row = [
            f"{rate:g}",
            verdict(of, best),
            tables.spread(runs.kept(of, "train_loss")),
            tables.spread(runs.kept(of, "test_accuracy")),
            f"step {min(steps)}" if steps else "-",
        ]
        rows.append(row)
    head = ("rate", "verdict", "final training loss", "test accuracy", "diverged at")
    return tables.table(head, rows, texts=2)


def _claims(found: Found) -> list[Claim]:
    finals = {
        rate: float(runs.kept(of, "train_loss").mean()) for rate, of in found.items()
    }
    best, lowest = _best(found), min(found)
    above = [rate for rate in found if rate > best and not math.isnan(finals[rate])]
    worst = max((finals[rate] for rate in above), default=math.nan)
    return [
        Claim(
            "a rate that is too low has learned little by the end: loss of the lowest "
            "rate over the best",
            *(finals[lowest] / finals[best], ">", 10.0),
        ),
        Claim(
            "a rate that is too high guesses blindly without diverging: largest loss "
            f"above the best rate, a blind guess being {GUESS:.3g}",
            *(worst, ">", 0.9 * GUESS),
        ),
        Claim(
            "a rate that is far too high ends in numbers that are not finite: runs of "
            "the highest rate that diverged",
            *(float(sum(run.diverged for run in found[max(found)])), ">=", 1.0),
        ),
    ]


LAB = Lab(
    "The ladder of learning rates",
    "A decade below the right rate training is slow, four below it stands still. A "
    "little above it the loss jumps to that of a blind guess and stays there, and far "
    "above the numbers overflow in the first steps.",
    measure,
    reduced=("--grid=learning_rate=0.0001,0.1,4,1000; seed=0", "--epochs=8"),
)

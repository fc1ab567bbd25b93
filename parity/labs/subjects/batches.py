"""Batch, mini-batch, stochastic: loss against examples and against wall time."""

from collections.abc import Mapping

import numpy as np

from jaxnn.experiment.flags.config import Experiment
from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench, Timed
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

REACHED = 0.5
"""Test loss whose first epoch is compared."""

TIMES = 3
"""Runs of which the fastest is drawn on the clock."""

Found = Mapping[int, list[Run]]
"""Batch size -> runs of its best rate."""


def measure(bench: Bench) -> Findings:
    """Trains each size at its best rate together, then alone on the clock."""
    swept = runs.split(bench.swept("sweep"), "batch_size")
    found = {
        size: runs.best_setting(of, "learning_rate", "test_loss")
        for size, of in swept.items()
    }
    timed = {
        size: fastest(bench, f"alone_{size}", of[0].experiment)
        for size, of in found.items()
    }
    samples = len(bench.data().train_inputs)
    sections = [_picture(found, timed, samples), _table(found, timed, samples)]
    return Findings(sections, _claims(found, timed))


def fastest(bench: Bench, name: str, experiment: Experiment) -> Timed:
    """Returns the fastest of some equal runs: other work only ever adds time."""
    times = 1 if bench.is_reduced else TIMES
    done = [bench.trained(f"{name}_{n}", experiment) for n in range(times)]
    return min(done, key=lambda timed: timed.seconds)


def _picture(found: Found, timed: Mapping[int, Timed], samples: int) -> str:
    figure, (examples, seconds) = figures.grid(2, size=(5.8, 3.6), sharey=True)
    losses = {
        _name(s, samples): runs.curves(of, "test_loss") for s, of in found.items()
    }
    longest = max(values.shape[1] for values in losses.values())
    curves.draw(examples, losses, samples * np.arange(1, longest + 1))
    alone = {_name(s, samples): t.metrics["test_loss"][None] for s, t in timed.items()}
    clock = {_name(s, samples): _clock(t) for s, t in timed.items()}
    curves.draw(seconds, alone, clock)
    examples.set(xlabel="training examples seen", ylabel="test loss", xscale="log")
    seconds.set(xlabel="seconds of training (seed 0, alone)", xscale="log")
    examples.set_yscale("log")
    figures.legend_below(figure, examples, len(found))
    return figures.picture(
        figure,
        "Test loss of each batch size at its best rate: mean over seeds and from the "
        "least to the largest, left; the fastest of three runs on the clock, right.",
    )


def _name(size: int, samples: int) -> str:
    kind = {1: "stochastic", samples: "batch"}.get(size, "mini-batch")
    return f"{kind}, {size}"


def _clock(timed: Timed) -> np.ndarray:
    """Returns [epochs], when each has ended; all take as long."""
    epochs = len(timed.metrics["test_loss"])
    return timed.seconds * np.arange(1, epochs + 1) / epochs


def epochs_to(of: list[Run]) -> float:
    """Returns the median epoch at which the test loss falls below REACHED; or inf."""
    below = runs.curves(of, "test_loss") < REACHED
    first = np.where(below.any(axis=1), below.argmax(axis=1) + 1.0, np.inf)
    return float(np.median(first))


def _epoch_seconds(timed: Timed) -> float:
    return timed.seconds / len(timed.metrics["test_loss"])


def _table(found: Found, timed: Mapping[int, Timed], samples: int) -> str:
    head = (
        *("batch", "best rate", f"epochs to loss {REACHED}", "seconds to it"),
        *("milliseconds an epoch", "final test loss", "test accuracy"),
    )
    rows = []
    for size, of in found.items():
        epochs, each = epochs_to(of), _epoch_seconds(timed[size])
        reached = np.isfinite(epochs)
        row = [
            _name(size, samples),
            f"{of[0].settings['learning_rate']:g}",
            f"{epochs:g}" if reached else "never",
            tables.number(epochs * each) if reached else "never",
            tables.number(1000 * each),
            tables.spread(runs.kept(of, "test_loss")),
            tables.spread(runs.kept(of, "test_accuracy")),
        ]
        rows.append(row)
    return tables.table(head, rows)


def _claims(found: Found, timed: Mapping[int, Timed]) -> list[Claim]:
    sizes = sorted(found)
    least, middle, most = sizes[0], sizes[-2], sizes[-1]
    return [
        Claim(
            f"one example at a time wastes the processor: seconds of an epoch in "
            f"batches of {least} over those in batches of {middle}",
            *(_epoch_seconds(timed[least]) / _epoch_seconds(timed[middle]), ">", 3.0),
            of_full_size=True,
        ),
        Claim(
            f"the whole batch wastes examples: epochs to the same test loss in batches "
            f"of {most} over those in batches of {middle}",
            *(epochs_to(found[most]) / epochs_to(found[middle]), ">", 2.0),
        ),
    ]


LAB = Lab(
    "Batch, mini-batch, stochastic",
    "An update from one example is cheap but wastes the processor; an update from all "
    "is exact but there is one an epoch. Mini-batches take the better of both: by "
    "examples they nearly keep up with the stochastic, by the clock they are ahead.",
    measure,
    reduced=("--grid=batch_size=64,1437; learning_rate=0.1; seed=0", "--epochs=20"),
)

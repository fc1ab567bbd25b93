"""Regularization: the gap between test and training loss, with and without."""

import numpy as np

from parity.labs import curves, figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab
from parity.labs.runs import Run

L2 = ("--l2=0.003",)
DROPOUT = ("--dropout_rates=0.6,0.4",)
STOPPING = ("--patience=8",)
METHODS = {
    "none": (),
    "L1": ("--l1=0.0005",),
    "L2": L2,
    "dropout": DROPOUT,
    "batch norm": ("--normalization=batch",),
    "early stopping": STOPPING,
    "all": (*L2, *DROPOUT, *STOPPING, "--l1=0.0001", "--normalization=batch"),
}
"""Name -> flags."""


def measure(bench: Bench) -> Findings:
    """Trains with each method."""
    chosen = ("none", "all") if bench.is_reduced else METHODS
    found = {name: bench.swept(name, *METHODS[name]) for name in chosen}
    return Findings([_gaps(found), _losses(found), _table(found)], _claims(found))


def gaps(of: list[Run]) -> np.ndarray:
    """Returns [runs], test loss less training loss of the networks that count."""
    return runs.kept(of, "test_loss") - runs.kept(of, "evaluated_train_loss")


def _gaps(found: dict[str, list[Run]]) -> str:
    figure, (axes,) = figures.grid(1, size=(11, 3.0))
    for place, of in enumerate(found.values()):
        values = gaps(of)
        axes.plot([place] * len(values), values, "o", color="0.45", markersize=5)
        axes.plot(place, values.mean(), "_", color="black", markersize=26, mew=2.5)
    axes.set_xticks(range(len(found)), list(found))
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(ylabel="test less training loss", ylim=(0, None))
    return figures.picture(
        figure, "The gap of each seed (dots) and its mean (bar), by method."
    )


def _losses(found: dict[str, list[Run]]) -> str:
    figure, panels = figures.grid(2, size=(6, 3.4), sharey=True)
    columns = {"evaluated_train_loss": "training loss", "test_loss": "test loss"}
    for axes, (column, title) in zip(panels, columns.items()):
        drawn = {name: runs.curves(of, column) for name, of in found.items()}
        curves.draw(axes, {name: shortened(values) for name, values in drawn.items()})
        axes.set(title=title, xlabel="epoch", yscale="log")
    figures.legend_below(figure, panels[0], 7)
    return figures.picture(
        figure,
        "Losses without dropout, mean over seeds and from the least to the largest; "
        "early stopping is drawn until its first seed stops.",
    )


def shortened(values: np.ndarray) -> np.ndarray:
    """Returns [runs, epochs] up to where the first run ends."""
    return values[:, ~np.isnan(values).any(axis=0)]


def _table(found: dict[str, list[Run]]) -> str:
    head = ("method", "training loss", "test loss", "gap", "test accuracy", "epochs")
    rows = [
        [
            name,
            tables.spread(runs.kept(of, "evaluated_train_loss")),
            tables.spread(runs.kept(of, "test_loss")),
            tables.spread(gaps(of)),
            tables.spread(runs.kept(of, "test_accuracy")),
            tables.spread(np.array([float(run.record.kept) for run in of])),
        ]
        for name, of in found.items()
    ]
    return tables.table(head, rows)


def _claims(found: dict[str, list[Run]]) -> list[Claim]:
    gap = {name: float(gaps(of).mean()) for name, of in found.items()}
    held_back = [n for n in gap if n not in ("none", "batch norm")]
    accuracy = {
        n: float(runs.kept(of, "test_accuracy").mean()) for n, of in found.items()
    }
    return [
        Claim(
            "L1, L2, dropout, early stopping and all together narrow the gap: worst "
            "of their gaps over that of none",
            *(max(gap[name] for name in held_back) / gap["none"], "<", 1.0),
        ),
        Claim(
            "together they narrow it most: gap of all over the least of any other",
            *(gap["all"] / min(gap[n] for n in gap if n != "all"), "<", 1.0),
            of_full_size=True,
        ),
        Claim(
            "together they take a quarter of it at least: their gap over that of none",
            *(gap["all"] / gap["none"], "<", 0.75),
        ),
        Claim(
            "the narrower gap is not bought with accuracy: test accuracy of the best "
            "method less that of none",
            *(max(accuracy.values()) - accuracy["none"], ">=", 0.0),
            of_full_size=True,
        ),
    ]


LAB = Lab(
    "Regularization",
    "A network that can learn its few training samples by heart ends with a wide gap "
    "between training and test loss. Penalties, dropout, normalization and stopping "
    "early narrow it, each in its way, and together most.",
    measure,
    reduced=("--grid=seed=0", "--epochs=12"),
    with_data=("--dataset=fashion_mnist", "--epochs=15", "--batch_size=256"),
)

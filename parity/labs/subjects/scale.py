"""Scale drives progress: accuracy against data size, by model and size of network."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from jaxnn.experiment.data.dataset import Dataset
from parity.labs import figures, runs, tables
from parity.labs.bench import Bench
from parity.labs.claims import Claim
from parity.labs.lab import Findings, Lab

SVM = "SVM"
LOGISTIC = "logistic regression"

Found = dict[str, dict[int, np.ndarray]]
"""Model -> training samples -> [seeds] test accuracy."""


def measure(bench: Bench) -> Findings:
    """Trains networks of each size, and scikit-learn's models, on less and more."""
    found: Found = {LOGISTIC: {}, SVM: {}}
    swept = bench.swept("sweep")
    for fraction, of_size in runs.split(swept, "validation_fraction").items():
        data = bench.data(f"--validation_fraction={fraction}")
        samples = len(data.train_inputs)
        found[LOGISTIC][samples] = fitted(LogisticRegression(max_iter=5000), data)
        found[SVM][samples] = fitted(SVC(C=10), data)
        for sizes, of in runs.split(of_size, "hidden_sizes").items():
            name = f"network {'-'.join(map(str, sizes))}"
            found.setdefault(name, {})[samples] = runs.kept(of, "test_accuracy")
    return Findings([_picture(found), _table(found)], _claims(found))


def fitted(model, data: Dataset) -> np.ndarray:
    """Returns [1], test accuracy of a scikit-learn model."""
    train, test = (
        np.asarray(inputs, np.float64).reshape(len(inputs), -1)
        for inputs in (data.train_inputs, data.test_inputs)
    )
    model.fit(train, data.train_targets.reshape(-1))
    return np.array([model.score(test, data.test_targets.reshape(-1))])


def _picture(found: Found) -> str:
    figure, (axes,) = figures.grid(1, size=(10, 4))
    for number, (name, of) in enumerate(found.items()):
        sizes = sorted(of)
        style = figures.stroke(number, 1)
        axes.plot(sizes, [of[n].mean() for n in sizes], label=name, **style)
        low, high = ([f(of[n]) for n in sizes] for f in (np.min, np.max))
        axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, lw=0)
    axes.set(xscale="log", xlabel="training samples", ylabel="test accuracy")
    figures.legend_below(figure, axes, len(found))
    return figures.picture(
        figure,
        "Test accuracy against training samples, after as many steps for each network: "
        "mean over seeds, and from the least to the largest.",
    )


def _table(found: Found) -> str:
    sizes = sorted(found[SVM])
    rows = [
        [name, *(tables.spread(of[n]) for n in sizes)] for name, of in found.items()
    ]
    return tables.table(["test accuracy", *(f"{n:,} samples" for n in sizes)], rows)


def _claims(found: Found) -> list[Claim]:
    least, most = min(found[SVM]), max(found[SVM])
    networks = [name for name in found if name.startswith("network")]
    small, large = networks[0], networks[-1]

    def mean(name: str, samples: int) -> float:
        return float(found[name][samples].mean())

    gains = [mean(name, most) - mean(name, least) for name in found]
    return [
        Claim(
            f"data help every model: least gain in accuracy from {least} to {most:,} "
            "samples",
            *(min(gains), ">", 0.1),
        ),
        Claim(
            f"with all data a larger network is better: {large} less {small}",
            *(mean(large, most) - mean(small, most), ">", 0.01),
            of_full_size=True,
        ),
        Claim(
            f"with all data the largest network passes {LOGISTIC}: difference",
            *(mean(large, most) - mean(LOGISTIC, most), ">", 0.0),
            of_full_size=True,
        ),
    ]


LAB = Lab(
    "Scale drives progress",
    "With few samples all models but the smallest network are alike, and size is no "
    "help; with more, the larger network gains longer than the small one and the "
    "linear model, which level off. On data as small as these an SVM keeps up.",
    measure,
    reduced=(
        "--grid=hidden_sizes=64; validation_fraction=0.97,0.05; seed=0",
        "--max_steps=300",
    ),
)

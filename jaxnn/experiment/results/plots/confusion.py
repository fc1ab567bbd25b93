"""Plot of the confusion matrix."""

import numpy as np
from matplotlib.figure import Figure

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.results import scores
from jaxnn.experiment.results.plots import canvas

MOST_CLASSES = 20

# Side of a cell, and the least number of classes that the figure is sized for.
INCHES_A_CELL = 0.45
LEAST_CELLS = 6

# Letters that fit below a cell; longer names are rotated.
LETTERS_A_CELL = 5


def confusion_matrix(data: Dataset, predicted: np.ndarray) -> Figure:
    """Counts of test samples by true and predicted class.

    Args:
      data: data set of at most `MOST_CLASSES` classes.
      predicted: [test samples] int classes.
    """
    classes = len(data.class_names)
    counts = scores.confusion(data.test_targets.reshape(-1), predicted, classes)
    cells = max(classes, LEAST_CELLS)
    side = INCHES_A_CELL * cells
    figure, axes = canvas.new((1.5 + side, 1 + side))
    axes.imshow(counts, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > counts.max() / 2 else "black"
        axes.text(
            column, row, str(count), ha="center", va="center", color=color, fontsize=9
        )

    longest = max(map(len, data.class_names))
    crowded = longest * classes > LETTERS_A_CELL * cells
    axes.set_xticks(range(classes), data.class_names, rotation=90 if crowded else 0)
    axes.set_yticks(range(classes), data.class_names)
    axes.set(
        xlabel="predicted class", ylabel="true class", title="Confusion matrix (test)"
    )
    axes.spines[["top", "right"]].set_visible(True)
    return figure

"""Scores of predictions, as scikit-learn defines them, in NumPy: importing
`sklearn.metrics` takes 0.7 s.

A score that is not defined on what it is given (a ratio over nothing) is None.
"""

import numpy as np

ROWS_AT_ONCE = 256
"""Windows of text whose logits are held in float64 at once."""


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[classes, classes] counts of samples by true (row) and predicted (column) class.

    Args:
      targets: [n] int classes.
      predicted: [n] int classes.
      classes: how many there are.
    """
    pairs = targets.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def binary(counts: np.ndarray) -> dict[str, float | None]:
    """Precision, recall and F1 of class 1.

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN),
    their harmonic mean (van Rijsbergen 1979).

    Args:
      counts: [2, 2] from `confusion`.
    """
    return {
        name: None if np.isnan(values[1]) else float(values[1])
        for name, values in _by_class(counts).items()
    }


def macro(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1, averaged over the classes that are in the targets or
    the predictions.

    A class that is never predicted has precision 0, one that never occurs recall 0, as
    in scikit-learn: leaving it out would reward ignoring it.

    Args:
      counts: [classes, classes] from `confusion`.
    """
    present = counts.sum(axis=0) + counts.sum(axis=1) > 0
    return {
        name: float(np.nan_to_num(values[present]).mean())
        for name, values in _by_class(counts).items()
    }


def _by_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    right, predicted, true = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan: not defined
        return {
            "precision": right / predicted,
            "recall": right / true,
            "f1": 2 * right / (predicted + true),
        }


def top_k_accuracy(outputs: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of the samples whose class has one of the k largest scores; of equal scores
    the first class's is larger.

    Args:
      outputs: [n, classes].
      targets: [n] int classes.
      k: how many guesses count.
    """
    own = np.take_along_axis(outputs, targets[:, None], axis=1)
    before = np.arange(outputs.shape[1]) < targets[:, None]
    rank = ((outputs > own) | ((outputs == own) & before)).sum(axis=1)
    return float(np.mean(rank < k))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The area under the ROC curve: how often a positive sample scores above a negative
    one, ties counting half.

    That is the rank statistic of Mann & Whitney 1947; its numerator is counted in
    integers.

    Args:
      scores: [n] real.
      positive: [n] bool; one value only: None.
    """
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None
    below, not_above = (
        int(np.searchsorted(negatives, positives, side).sum())
        for side in ("left", "right")
    )
    return (below + not_above) / (2 * len(positives) * len(negatives))


def roc_auc_one_vs_rest(outputs: np.ndarray, targets: np.ndarray) -> float | None:
    """ROC AUC of each class's softmax against all others, averaged over the classes;
    None if one never occurs.

    Args:
      outputs: [n, classes] logits.
      targets: [n] int classes.
    """
    scores = softmax(outputs)
    areas = [
        roc_auc(scores[:, number], targets == number)
        for number in range(scores.shape[1])
    ]
    return None if None in areas else float(np.mean(areas))


def softmax(outputs: np.ndarray) -> np.ndarray:
    """exp(z_k) / sum_j exp(z_j) in float64: [..., classes] -> [..., classes]."""
    exponentials = np.exp(_below_zero(outputs))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """log(sum_k exp(z_k)) - z_t in nats, averaged over every position of every sample.

    Args:
      outputs: [n, steps, classes] logits z.
      targets: [n, steps] int classes t.
    """
    total = 0.0
    for start in range(0, len(outputs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        logits = _below_zero(outputs[rows])
        own = np.take_along_axis(logits, targets[rows, :, None], axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(axis=-1)) - own).sum())
    return total / targets.size


def regression(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Mean absolute, root mean square and largest error, and R^2.

    Args:
      outputs: [n, outputs].
      targets: [n, outputs].
    """
    error = outputs.astype(np.float64) - targets
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": root_mean_square(error),
        "r2": r2(outputs, targets),
        "max_error": float(np.abs(error).max()),
    }


def root_mean_square(errors: np.ndarray) -> float:
    """sqrt(mean(e^2)), in float64."""
    return float(np.sqrt(np.square(errors, dtype=np.float64).mean()))


def r2(outputs: np.ndarray, targets: np.ndarray) -> float | None:
    """1 - sum((y - t)^2) / sum((t - mean t)^2), the share of the variance explained,
    averaged over the outputs.

    Args:
      outputs: [n, outputs].
      targets: [n, outputs]; one of them constant: None.
    """
    if (np.ptp(targets, axis=0) == 0).any():
        return None
    outputs, targets = outputs.astype(np.float64), targets.astype(np.float64)
    unexplained = np.square(targets - outputs).sum(axis=0)
    return float(
        (1 - unexplained / np.square(targets - targets.mean(axis=0)).sum(axis=0)).mean()
    )


def _below_zero(logits: np.ndarray) -> np.ndarray:
    """Logits in float64, moved so that the largest of each is 0: their exponentials do
    not overflow."""
    logits = logits.astype(np.float64)
    return logits - logits.max(axis=-1, keepdims=True)

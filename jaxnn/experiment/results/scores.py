"""Scores of predictions, as scikit-learn defines them, in NumPy.

NumPy alone, because importing sklearn.metrics takes 0.7 s. A score that is undefined on
its input (a ratio with denominator 0) is None.
"""

import numpy as np

# Windows of text whose logits are in memory as float64 at once.
ROWS_AT_ONCE = 256


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Returns [classes, classes] counts of samples by true (row) and predicted class.

    Args:
      targets: [n] int classes.
      predicted: [n] int classes.
      classes: number of classes.
    """
    pairs = targets.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def binary(counts: np.ndarray) -> dict[str, float | None]:
    """Precision, recall and F1 of class 1.

    precision = TP / (TP + FP), recall = TP / (TP + FN), and their harmonic mean F1 =
    2 TP / (2 TP + FP + FN) (van Rijsbergen 1979).

    Args:
      counts: [2, 2] from `confusion`.
    """
    return {
        name: None if np.isnan(values[1]) else float(values[1])
        for name, values in _by_class(counts).items()
    }


def macro(counts: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1, averaged over classes.

    Classes that are in neither targets nor predictions are left out.

    Args:
      counts: [classes, classes] from `confusion`.
    """
    present = counts.sum(axis=0) + counts.sum(axis=1) > 0
    # As in scikit-learn, a class that is never predicted has precision 0 and one that
    # never occurs recall 0: leaving them out would reward a model that ignores a class.
    return {
        name: float(np.nan_to_num(values[present]).mean())
        for name, values in _by_class(counts).items()
    }


def _by_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Returns score -> [classes]; NaN: undefined."""
    right = counts.diagonal()
    predicted = counts.sum(axis=0)
    true = counts.sum(axis=1)
    # 0 / 0 is NaN.
    with np.errstate(invalid="ignore"):
        return {
            "precision": right / predicted,
            "recall": right / true,
            "f1": 2 * right / (predicted + true),
        }


def top_k_accuracy(outputs: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Share of samples whose class is among the k largest scores.

    Args:
      outputs: [n, classes] scores.
      targets: [n] int classes.
      k: number of guesses that count.
    """
    own = np.take_along_axis(outputs, targets[:, None], axis=1)
    # Of equal scores, that of the first class counts as larger, as in argmax.
    before = np.arange(outputs.shape[1]) < targets[:, None]
    rank = ((outputs > own) | ((outputs == own) & before)).sum(axis=1)
    return float(np.mean(rank < k))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve.

    It is the probability that a positive sample scores above a negative one, with ties
    counting half: the rank statistic of Mann & Whitney 1947.

    Args:
      scores: [n] float.
      positive: [n] bool; None is returned if all are equal.
    """
    positives = scores[positive]
    negatives = np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None

    # Pairs are counted in integers: below counts the ties not at all, not_above counts
    # them whole, and the mean of both counts them half.
    below = int(np.searchsorted(negatives, positives, "left").sum())
    not_above = int(np.searchsorted(negatives, positives, "right").sum())
    return (below + not_above) / (2 * len(positives) * len(negatives))


def roc_auc_one_vs_rest(outputs: np.ndarray, targets: np.ndarray) -> float | None:
    """Mean over the classes of the ROC AUC of a class's softmax against all others.

    Args:
      outputs: [n, classes] logits.
      targets: [n] int classes; None is returned if a class never occurs.
    """
    scores = softmax(outputs)
    areas = [
        roc_auc(scores[:, number], targets == number)
        for number in range(scores.shape[1])
    ]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(areas) else None


def softmax(outputs: np.ndarray) -> np.ndarray:
    """exp(z_k) / sum_j exp(z_j) in float64: [..., classes] -> [..., classes]."""
    exponentials = np.exp(_below_zero(outputs))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """log(sum_k exp(z_k)) - z_t in nats, averaged over all positions of all samples.

    Args:
      outputs: [n, steps, classes] logits z.
      targets: [n, steps] int classes t.
    """
    total = 0.0
    for start in range(0, len(outputs), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        logits = _below_zero(outputs[rows])
        own = np.take_along_axis(logits, targets[rows, :, None], axis=-1)[..., 0]
        normalizers = np.log(np.exp(logits).sum(axis=-1))
        total += float((normalizers - own).sum())
    return total / targets.size


def regression(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Mean absolute, root mean square and maximum error, and R^2.

    Args:
      outputs: [n, outputs] predictions.
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
    """1 - sum((y - t)^2) / sum((t - mean t)^2), averaged over the outputs.

    Args:
      outputs: [n, outputs] predictions y.
      targets: [n, outputs] targets t; None is returned if an output is constant.
    """
    if (np.ptp(targets, axis=0) == 0).any():
        return None
    outputs = outputs.astype(np.float64)
    targets = targets.astype(np.float64)
    unexplained = np.square(targets - outputs).sum(axis=0)
    total = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    return float((1 - unexplained / total).mean())


def _below_zero(logits: np.ndarray) -> np.ndarray:
    """Shifts logits to a maximum of 0 in float64, where exp cannot overflow."""
    logits = logits.astype(np.float64)
    return logits - logits.max(axis=-1, keepdims=True)

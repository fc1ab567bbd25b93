"""Final metrics of a run by task, and the lines that print them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment import traits
from jaxnn.experiment.catalogue import BINARY, LANGUAGE, MULTICLASS, REGRESSION
from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import baselines, scores

# The data set "linear" is y = 2x + 1.
TRUE_WEIGHT = 2.0
TRUE_BIAS = 1.0

# k of the top-k accuracy, reported if there are more classes.
GUESSES = 3

# Limit of a cross-entropy in nats: exp overflows float64 above 709.
MOST_NATS = 700


def final_metrics(
    experiment: Experiment,
    data: Dataset,
    params: Mapping[str, np.ndarray],
    outputs: np.ndarray,
) -> dict[str, Any]:
    """Returns the `final` entry of summary.json.

    Scores that are undefined on this test split are left out.

    Args:
      experiment: names the data set and the model.
      data: data set whose test split was predicted.
      params: flat master parameters.
      outputs: [test samples, outputs] of the trained network, or [test samples, steps,
        vocabulary] for language.
    """
    final = TASKS[data.task](data, outputs)
    if data.task == REGRESSION:
        final |= baselines.compare(experiment, data, final["rmse"])
    if data.task == BINARY:
        final |= baselines.compare_classes(experiment, data)
    if traits.fits_line(experiment):
        final |= line_errors(*fitted_line(params))
    return {name: value for name, value in final.items() if value is not None}


def _regression(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    return scores.regression(outputs, data.test_targets)


def _binary(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    positive = data.test_targets[:, 0] > 0.5
    counts = scores.confusion(positive, predicted_classes(data, outputs), 2)
    return {
        **_accuracy(counts),
        "positive_class": data.class_names[1] if data.class_names else None,
        **scores.binary(counts),
        "roc_auc": scores.roc_auc(outputs[:, 0], positive),
    }


def _multiclass(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    targets = data.test_targets
    classes = outputs.shape[1]
    counts = scores.confusion(targets, predicted_classes(data, outputs), classes)
    final = _accuracy(counts)
    if classes > GUESSES:
        final[f"top_{GUESSES}_accuracy"] = scores.top_k_accuracy(
            outputs, targets, GUESSES
        )
    final |= scores.macro(counts)
    return final | {"roc_auc": scores.roc_auc_one_vs_rest(outputs, targets)}


def _language(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    nats = scores.cross_entropy(outputs, data.test_targets)
    return {
        "bits_per_character": nats / math.log(2),
        "perplexity": math.exp(nats) if nats < MOST_NATS else None,
    }


def _accuracy(counts: np.ndarray) -> dict[str, Any]:
    correct = int(counts.trace())
    samples = int(counts.sum())
    return {"accuracy": correct / samples, "correct": correct, "samples": samples}


TASKS = {
    REGRESSION: _regression,
    BINARY: _binary,
    MULTICLASS: _multiclass,
    LANGUAGE: _language,
}


def predicted_classes(data: Dataset, outputs: np.ndarray) -> np.ndarray:
    """Returns [samples] int: the class of each row of logits."""
    if data.task == BINARY:
        return (outputs[:, 0] >= 0).astype(int)
    return outputs.argmax(axis=-1)


def fitted_line(params: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns weight and bias of a linear network with one input and one output."""
    # There is none under --nouse_bias.
    bias = params.get("output/bias", np.zeros(1))
    return float(params["output/kernel"].item()), float(bias.item())


def line_errors(weight: float, bias: float) -> dict[str, Any]:
    """Errors of a fitted line against y = 2x + 1: absolute, in percent, and a grade."""
    weight_error = abs(weight - TRUE_WEIGHT)
    bias_error = abs(bias - TRUE_BIAS)
    return {
        "weight": weight,
        "bias": bias,
        "weight_error": weight_error,
        "bias_error": bias_error,
        "weight_error_percent": 100 * weight_error / TRUE_WEIGHT,
        "bias_error_percent": 100 * bias_error / TRUE_BIAS,
        "quality": quality(max(weight_error, bias_error)),
    }


def quality(error: float) -> str:
    """Grade of an error: excellent < 0.01, good < 0.05, fair < 0.1, else poor."""
    for word, limit in (("excellent", 0.01), ("good", 0.05), ("fair", 0.1)):
        if error < limit:
            return word
    return "poor"


def lines(final: Mapping[str, Any]) -> list[str]:
    """Returns the final metrics as lines to print."""
    if "quality" in final:
        found = _line_quality(final)
    elif "accuracy" in final:
        found = _class_scores(final) + _baselines(final)
    else:
        found = _plain(final) + _baselines(final)
    return found + _gaps(final)


def _line_quality(final: Mapping[str, Any]) -> list[str]:
    return [
        f"weight {final['weight']:.6f}, off by {final['weight_error']:.6f} "
        f"({final['weight_error_percent']:.3f} %)",
        f"bias   {final['bias']:.6f}, off by {final['bias_error']:.6f} "
        f"({final['bias_error_percent']:.3f} %)",
        f"quality: {final['quality']}",
    ]


def _class_scores(final: Mapping[str, Any]) -> list[str]:
    accuracy = (
        f"test accuracy {final['accuracy']:.4f} ({final['correct']} of "
        f"{final['samples']})"
    )
    found = [
        f"{text} {final[name]:.4f}"
        for name, text in CLASS_SCORES.items()
        if name in final
    ]
    if not found:
        return [accuracy]
    positive = ""
    if "positive_class" in final:
        positive = f"; class {final['positive_class']} against the rest"
    return [accuracy, f"test {', '.join(found)}{positive}"]


def _plain(final: Mapping[str, Any]) -> list[str]:
    return [
        f"test {name.replace('_', ' ')} {final[name]:.6g}"
        for name in PLAIN
        if name in final
    ]


def _baselines(final: Mapping[str, Any]) -> list[str]:
    found = []
    if "linear_regression_r2" in final:
        found.append(f"linear regression: r2 {final['linear_regression_r2']:.6g}")
    if "logistic_regression_accuracy" in final:
        accuracy = final["logistic_regression_accuracy"]
        found.append(f"logistic regression: accuracy {accuracy:.4f}")
    if "persistence_rmse" in final:
        line = f"persistence: rmse {final['persistence_rmse']:.6g}"
        times = final.get("times_below_persistence")
        if times:
            line += f", {times:.4g} times the network's"
        found.append(line)
    return found


def _gaps(final: Mapping[str, Any]) -> list[str]:
    gaps = [
        f"{name.removesuffix('_gap')} {value:.6g}"
        for name, value in final.items()
        if name.endswith("_gap")
    ]
    return [f"gap to the training split: {', '.join(gaps)}"] if gaps else []


# Metrics with a line each.
PLAIN = ("mae", "rmse", "r2", "max_error", "bits_per_character", "perplexity")

# Metrics that share the second line of a classification -> their names there.
CLASS_SCORES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    f"top_{GUESSES}_accuracy": f"top-{GUESSES} accuracy",
}

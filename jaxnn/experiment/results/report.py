"""What a finished run says of itself: the task's final metrics and the lines that print
them. NumPy only."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.data.dataset import (
    BINARY,
    LANGUAGE,
    MULTICLASS,
    REGRESSION,
    Dataset,
)
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.results import baselines, scores

TRUE_WEIGHT, TRUE_BIAS = 2.0, 1.0  # of the linear data set
GUESSES = 3
"""Of how many a sample's class may be one, where there are more classes than that."""

MOST_NATS = 700
"""A cross entropy beyond this has a perplexity beyond float64."""


def final_metrics(
    experiment: Experiment,
    data: Dataset,
    params: Mapping[str, np.ndarray],
    outputs: np.ndarray,
) -> dict[str, Any]:
    """The `final` entry of summary.json. A score that is not defined on this test split
    is left out.

    Args:
      experiment: names the data set.
      data: its test split is what `outputs` answer.
      params: flat master parameters.
      outputs: [test samples, outputs] of the trained network; [test samples, steps,
        vocabulary] for language.
    """
    final = TASKS[data.task](data, outputs)
    if data.task == REGRESSION:
        final |= baselines.compare(experiment, data, final["rmse"])
    if experiment.dataset == experiment.model == "linear":
        final |= line_errors(
            float(params["output/kernel"].item()), float(params["output/bias"].item())
        )
    return {name: value for name, value in final.items() if value is not None}


def _regression(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    return scores.regression(outputs, data.test_targets)


def _binary(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    positive = data.test_targets[:, 0] > 0.5
    counts = scores.confusion(positive, predicted_classes(data, outputs), 2)
    return _accuracy(counts) | {
        "positive_class": data.class_names[1] if data.class_names else None,
        **scores.binary(counts),
        "roc_auc": scores.roc_auc(outputs[:, 0], positive),
    }


def _multiclass(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    counts = scores.confusion(
        data.test_targets, predicted_classes(data, outputs), outputs.shape[1]
    )
    final = _accuracy(counts)
    if outputs.shape[1] > GUESSES:
        final[f"top_{GUESSES}_accuracy"] = scores.top_k_accuracy(
            outputs, data.test_targets, GUESSES
        )
    return (
        final
        | scores.macro(counts)
        | {"roc_auc": scores.roc_auc_one_vs_rest(outputs, data.test_targets)}
    )


def _language(data: Dataset, outputs: np.ndarray) -> dict[str, Any]:
    nats = scores.cross_entropy(outputs, data.test_targets)
    return {
        "bits_per_character": nats / math.log(2),
        "perplexity": math.exp(nats) if nats < MOST_NATS else None,
    }


def _accuracy(counts: np.ndarray) -> dict[str, Any]:
    right, samples = int(counts.trace()), int(counts.sum())
    return {"accuracy": right / samples, "correct": right, "samples": samples}


TASKS = {
    REGRESSION: _regression,
    BINARY: _binary,
    MULTICLASS: _multiclass,
    LANGUAGE: _language,
}


def predicted_classes(data: Dataset, outputs: np.ndarray) -> np.ndarray:
    """[samples] int: the class of each row of logits."""
    return (
        (outputs[:, 0] >= 0).astype(int)
        if data.task == BINARY
        else outputs.argmax(axis=-1)
    )


def line_errors(weight: float, bias: float) -> dict[str, Any]:
    """How near a fitted line is to y = 2x + 1 (seed document 000): values, absolute and
    per-cent errors, a word."""
    weight_error, bias_error = abs(weight - TRUE_WEIGHT), abs(bias - TRUE_BIAS)
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
    """excellent below 0.01, good below 0.05, fair below 0.1, else poor."""
    for word, limit in (("excellent", 0.01), ("good", 0.05), ("fair", 0.1)):
        if error < limit:
            return word
    return "poor"


def lines(final: Mapping[str, Any]) -> list[str]:
    """The final metrics as a person reads them."""
    if "quality" in final:
        found = _line_quality(final)
    elif "accuracy" in final:
        found = [
            f"test accuracy {final['accuracy']:.4f} ({final['correct']} of "
            f"{final['samples']})"
        ]
        found += _class_scores(final)
    else:
        found = [
            f"test {name.replace('_', ' ')} {final[name]:.6g}"
            for name in PLAIN
            if name in final
        ]
        found += _baselines(final)
    gaps = [
        f"{name.removesuffix('_gap')} {value:.6g}"
        for name, value in final.items()
        if name.endswith("_gap")
    ]
    return found + ([f"gap to the training split: {', '.join(gaps)}"] if gaps else [])


def _line_quality(final: Mapping[str, Any]) -> list[str]:
    return [
        f"weight {final['weight']:.6f}, off by {final['weight_error']:.6f} "
        f"({final['weight_error_percent']:.3f} %)",
        f"bias   {final['bias']:.6f}, off by {final['bias_error']:.6f} "
        f"({final['bias_error_percent']:.3f} %)",
        f"quality: {final['quality']}",
    ]


def _class_scores(final: Mapping[str, Any]) -> list[str]:
    found = [
        f"{text} {final[name]:.4f}"
        for name, text in CLASS_SCORES.items()
        if name in final
    ]
    positive = (
        f"; class {final['positive_class']} against the rest"
        if "positive_class" in final
        else ""
    )
    return [f"test {', '.join(found)}{positive}"] if found else []


def _baselines(final: Mapping[str, Any]) -> list[str]:
    found = []
    if "linear_regression_r2" in final:
        found.append(f"linear regression: r2 {final['linear_regression_r2']:.6g}")
    if "persistence_rmse" in final:
        times = final.get("times_below_persistence")
        found.append(
            f"persistence: rmse {final['persistence_rmse']:.6g}"
            + (f", {times:.4g} times the network's" if times else "")
        )
    return found


PLAIN = ("mae", "rmse", "r2", "max_error", "bits_per_character", "perplexity")
CLASS_SCORES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    f"top_{GUESSES}_accuracy": f"top-{GUESSES} accuracy",
}

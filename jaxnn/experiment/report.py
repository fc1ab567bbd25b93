"""What a finished run says of itself: the task's final metrics and the lines that print them. NumPy only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.experiment.config import Experiment
from jaxnn.experiment.datasets import BINARY, REGRESSION, Dataset

TRUE_WEIGHT, TRUE_BIAS = 2.0, 1.0  # of the linear data set


def final_metrics(experiment: Experiment, data: Dataset, params: Mapping[str, np.ndarray],
                  outputs: np.ndarray) -> dict[str, Any]:
    """The `final` entry of summary.json.

    Args:
      experiment: names the data set.
      data: its test split is what `outputs` answer.
      params: flat master parameters.
      outputs: [test samples, outputs] of the trained network.
    """
    if data.task == REGRESSION:
        final = _regression(outputs, data.test_targets)
    else:
        right = int((predicted_classes(data, outputs) == data.test_targets.reshape(-1)).sum())
        final = {"accuracy": right / len(outputs), "correct": right, "samples": len(outputs)}
    if experiment.dataset == experiment.model == "linear":
        final |= line_errors(float(params["output/kernel"].item()), float(params["output/bias"].item()))
    return final


def predicted_classes(data: Dataset, outputs: np.ndarray) -> np.ndarray:
    """[samples] int: the class of each row of logits."""
    return (outputs[:, 0] >= 0).astype(int) if data.task == BINARY else outputs.argmax(axis=-1)


def line_errors(weight: float, bias: float) -> dict[str, Any]:
    """How near a fitted line is to y = 2x + 1 (seed document 000): values, absolute and per-cent errors, a word."""
    weight_error, bias_error = abs(weight - TRUE_WEIGHT), abs(bias - TRUE_BIAS)
    return {
        "weight": weight, "bias": bias, "weight_error": weight_error, "bias_error": bias_error,
        "weight_error_percent": 100 * weight_error / TRUE_WEIGHT, "bias_error_percent": 100 * bias_error / TRUE_BIAS,
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
        return [
            f"weight {final['weight']:.6f}, off by {final['weight_error']:.6f} ({final['weight_error_percent']:.3f} %)",
            f"bias   {final['bias']:.6f}, off by {final['bias_error']:.6f} ({final['bias_error_percent']:.3f} %)",
            f"quality: {final['quality']}",
        ]
    if "accuracy" in final:
        return [f"test accuracy {final['accuracy']:.4f} ({final['correct']} of {final['samples']})"]
    return [f"test {name} {value:.6g}" for name, value in final.items()]


def _regression(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    error = outputs.astype(np.float64) - targets
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}

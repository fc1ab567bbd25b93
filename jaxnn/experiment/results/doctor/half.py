"""Numbers that FP16 does not hold: too large, or too small."""

import numpy as np

from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding

SKIPPED = 0.05
FEWEST_SKIPPED = 10
"""A dynamic scale begins too high and skips some steps, which is no disease."""
LARGEST = 65504.0
LARGE_COLUMN = LARGEST / 100
LOST = 0.5


def findings(evidence: Evidence) -> list[Finding]:
    """Returns what FP16 loses of a run, and in which tensor or input column."""
    if evidence.experiment.precision != "fp16":
        return []
    return [*_overflow(evidence), *_gradients(evidence), *_columns(evidence)]


def _overflow(evidence: Evidence) -> list[Finding]:
    skipped = evidence.skipped_steps or 0
    steps = evidence.steps
    if skipped < FEWEST_SKIPPED or skipped < SKIPPED * steps:
        return []
    return [
        Finding(
            "FP16 overflow",
            f"{skipped} of {steps} steps overflowed and were skipped"
            f"{_where(evidence)}; {_remedy(evidence)}",
        )
    ]


def _where(evidence: Evidence) -> str:
    """Returns which tensors and input columns are large, as far as that was seen."""
    found = evidence.diagnostics
    parts = []
    if found:
        is_lost = ~np.isfinite(found.measured["gradient_norm"][:, 1:])
        # An empty cell means that there is no such number; a gradient always has one.
        lost = np.flatnonzero(np.any(is_lost, axis=0))
        layers = [found.layers[1 + place] for place in lost]
        if layers:
            parts.append(f"the gradient of {', '.join(layers)} at a diagnosed step")
    if column := _largest_column(evidence):
        parts.append(f"the input column {column[0]!r} reaches {column[1]:g}")
    return f": {'; '.join(parts)}" if parts else ""


def _largest_column(evidence: Evidence) -> tuple[str, float] | None:
    columns = evidence.facts.columns if evidence.facts else ()
    large = max(columns, key=lambda column: column.largest, default=None)
    if large is None or large.largest < LARGE_COLUMN:
        return None
    return large.name, large.largest


def _remedy(evidence: Evidence) -> str:
    if _largest_column(evidence) and evidence.experiment.preprocess == "none":
        return "try --preprocess=standardize"
    if evidence.experiment.static_loss_scale:
        return "lower --static_loss_scale, or leave it out"
    return "try --precision=bf16, or a lower --initial_scale_power or --learning_rate"


def _gradients(evidence: Evidence) -> list[Finding]:
    """Gradients that are there in float32, and lost in FP16."""
    found = evidence.diagnostics
    if found is None:
        return []
    shares = found.measured["underflow"][:, 1:]
    lost = {
        layer: float(np.nanmedian(of_layer))
        for layer, of_layer in zip(found.layers[1:], shares.T)
        if np.isfinite(of_layer).any()
    }
    layer = max(lost, key=lost.__getitem__, default="")
    if not layer or lost[layer] < LOST:
        return []
    scale = found.of_network["loss_scale"][-1]
    return [
        Finding(
            "FP16 underflow",
            f"{lost[layer]:.0%} of the gradient of {layer} is lost in FP16 at a loss "
            f"scale of {scale:g}; {_lift(evidence)}",
        )
    ]


def _lift(evidence: Evidence) -> str:
    if evidence.experiment.static_loss_scale:
        return "raise --static_loss_scale, or leave it out for a dynamic one"
    return "raise --initial_scale_power, or try --precision=bf16"


def _columns(evidence: Evidence) -> list[Finding]:
    """Input columns of which FP16 keeps few digits, or none."""
    columns = evidence.facts.columns if evidence.facts else ()
    tiny = [column for column in columns if column.tiny > LOST]
    return [
        Finding(
            "FP16 underflow",
            f"{column.tiny:.0%} of the input column {column.name!r} lies below FP16's "
            f"normal numbers, at most {column.largest:.2g}; try "
            "--preprocess=standardize",
        )
        for column in tiny[:1]
    ]

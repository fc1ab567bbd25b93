"""Diseases of single layers, which only `--diagnose` shows: gradients that vanish or
explode, dead units."""

import numpy as np

from jaxnn.experiment.files.diagnostics import Diagnostics
from jaxnn.experiment.results.doctor import curves
from jaxnn.experiment.results.doctor.evidence import Evidence
from jaxnn.experiment.results.doctor.finding import Finding

VANISHED = 1e-3
"""Gradient of the first layer beside the last's, below which the first learns nothing
while the last does."""
EXPLODED = 1e4
UNMOVED = 0.01
"""Update of the weights in a step of the first epoch, which leaves them about as they
were drawn."""
LARGEST_UPDATE = 0.1
DEAD = 0.9
FEWEST_LAYERS = 3


def findings(evidence: Evidence) -> list[Finding]:
    """Returns what is wrong with the layers of a run that learns nothing."""
    found = evidence.diagnostics
    is_ill = curves.is_stuck(evidence) or curves.overshoots(evidence)
    if found is None or not (is_ill or evidence.error):
        return []
    for rule in (_exploding, _dead, _vanishing):
        if finding := rule(evidence, found):
            return [finding]
    return []


def _typical(found: Diagnostics, name: str) -> np.ndarray:
    """Returns [layers] medians over the diagnosed steps, NaN where never defined."""
    values = found.measured[name][:, 1:]
    known = np.isfinite(values).any(axis=0)
    typical = np.full(values.shape[1], np.nan)
    typical[known] = np.nanmedian(
        np.where(np.isfinite(values), values, np.nan)[:, known], axis=0
    )
    return typical


def _ends(found: Diagnostics) -> tuple[str, float, str, float] | None:
    """Returns first and last layer with their gradients; None for few layers."""
    norms = _typical(found, "gradient_norm")
    layers = found.layers[1:]
    if len(layers) < FEWEST_LAYERS or np.isnan(norms[[0, -1]]).any():
        return None
    return layers[0], norms[0], layers[-1], norms[-1]


def _vanishing(evidence: Evidence, found: Diagnostics) -> Finding | None:
    ends = _ends(found)
    if not ends or not ends[1] < VANISHED * ends[3]:
        return None
    # Large steps may have driven the units to where they are flat.
    if not np.nanmax(found.measured["update_ratio"][:, 0]) < LARGEST_UPDATE:
        return None
    first, small, last, large = ends
    remedies = "--normalization=batch, another --initializer"
    if evidence.experiment.activation in ("sigmoid", "tanh"):
        remedies = f"--activation=relu with --initializer=he_normal, {remedies}"
    return Finding(
        "vanishing gradients",
        f"the gradient is {small:.2g} in {first} and {large:.2g} in {last}, and the "
        f"loss stays at {curves.level(evidence.train_loss):.4g}: {first} learns "
        f"nothing; try {remedies}, or fewer layers",
    )


def _exploding(evidence: Evidence, found: Diagnostics) -> Finding | None:
    # Weights that large steps have moved by now explode by the rate's doing.
    if not found.measured["update_ratio"][0, 0] < UNMOVED:
        return None
    ends = _ends(found)
    deviations = found.measured["activation_std"][0, 1:]
    known = np.flatnonzero(np.isfinite(deviations) & (deviations > 0))
    grows = (
        len(known) >= FEWEST_LAYERS
        and deviations[known[-1]] > EXPLODED * deviations[known[0]]
    )
    if grows:
        low, high = known[0], known[-1]
        return Finding(
            "exploding activations",
            f"the deviation of activations grows from {deviations[low]:.2g} in "
            f"{found.layers[1 + low]} to {deviations[high]:.2g} in "
            f"{found.layers[1 + high]}; try --initializer=he_normal, or "
            "--normalization=batch",
        )
    if not ends or not ends[1] > EXPLODED * ends[3]:
        return None
    return Finding(
        "exploding gradients",
        f"the gradient is {ends[1]:.2g} in {ends[0]} and {ends[3]:.2g} in {ends[2]}; "
        "try --initializer=he_normal, --normalization=batch or --clip_norm=1",
    )


def _dead(evidence: Evidence, found: Diagnostics) -> Finding | None:
    if evidence.experiment.activation != "relu":
        return None
    worst = {layer: share for layer, share in found.last("dead").items()}
    layer = max(worst, key=worst.__getitem__, default="")
    if not layer or worst[layer] < DEAD:
        return None
    # Which of the two has killed them shows in the first epoch.
    first = found.measured["dead"][0, found.layers.index(layer)]
    when = f"{first:.0%} of them in epoch {found.epochs[0]}"
    return Finding(
        "dead units",
        f"{worst[layer]:.0%} of the units of {layer} give 0 for every row at the end, "
        f"{when}, and the loss stays at {curves.level(evidence.train_loss):.4g}; lower "
        f"--learning_rate={evidence.experiment.learning_rate:g}, or try "
        "--activation=leaky_relu",
    )

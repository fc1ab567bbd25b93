"""The labs by name, a file each.

To add one: a file here that ends in `LAB = Lab(title, says, measure)`, a row below,
and, if it trains from flags, launch/labs/NAME.flags. `measure` takes a `Bench` and
returns `Findings`; it may sweep (`bench.swept`), train (`bench.trained`), or do
anything else.
"""

from parity.labs.lab import Lab
from parity.labs.subjects import (
    activations,
    approximation,
    batches,
    engine,
    gradients,
    half,
    memory,
    optimizers,
    perceptron,
    rates,
    regularization,
    scale,
    side_by_side,
    surface,
    vectors,
)

LABS: dict[str, Lab] = {
    "optimizers": optimizers.LAB,
    "regularization": regularization.LAB,
    "activations": activations.LAB,
    "gradients": gradients.LAB,
    "approximation": approximation.LAB,
    "batches": batches.LAB,
    "rates": rates.LAB,
    "surface": surface.LAB,
    "scale": scale.LAB,
    "half": half.LAB,
    "side_by_side": side_by_side.LAB,
    "memory": memory.LAB,
    "perceptron": perceptron.LAB,
    "engine": engine.LAB,
    "vectors": vectors.LAB,
}
"""Name -> lab."""

"""Refuses an experiment that no memory holds, before any of it is allocated."""

import itertools
import math

from jaxnn.experiment.catalogue import OPTIMIZERS, RECURRENT, TRANSFORMERS, is_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.data.sources.playground import PLAYGROUND
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.memory import require_room

GENERATED = ("linear", "approximation", *PLAYGROUND, "sine", "blobs", "markov")
SAMPLE_BYTES = 32
"""Of a generated sample and its target, in float64 and as float32."""
FLOAT = 4


def check_samples(experiment: Experiment) -> None:
    """Raises UserError if the samples to generate do not fit into memory."""
    if experiment.dataset in GENERATED:
        count = experiment.num_samples
        require_room(SAMPLE_BYTES * count, "--num_samples", f"{count} samples")


def check_network(experiment: Experiment, signature: Signature) -> None:
    """Raises UserError if a network does not suit the images, or fit into memory."""
    if is_own(experiment.model):
        return
    _check_kernel(experiment, signature)
    flag = _flag(experiment)
    # A gradient and a copy of the parameters beside the optimizer's moments.
    copies = 2 + len(OPTIMIZERS[experiment.optimizer].moments)
    count = parameters(experiment, signature)
    require_room(FLOAT * copies * count, flag, f"{count:.3g} parameters")
    rows = experiment.batch_size // experiment.accumulation_steps
    count = rows * activations(experiment, signature)
    require_room(FLOAT * count, f"{flag}, --batch_size", f"{count:.3g} activations")


def parameters(experiment: Experiment, signature: Signature) -> int:
    """Returns the number of parameters, or somewhat fewer."""
    if experiment.model in TRANSFORMERS:
        width = experiment.width
        inner = experiment.mlp_width or 4 * width
        # Queries, keys, values and the projection, then the two layers of the MLP.
        block = 4 * width**2 + 2 * width * inner
        return experiment.num_layers * block + width * signature.num_outputs
    convolutions = itertools.pairwise(experiment.channels)
    kernels = sum(experiment.kernel_size**2 * a * b for a, b in convolutions)
    sizes = [*experiment.hidden_sizes, signature.num_outputs]
    if experiment.model != "cnn":
        sizes.insert(0, signature.num_tokens or signature.input_shape[-1])
    products = sum(a * b for a, b in itertools.pairwise(sizes))
    # A recurrent layer also reads its own units.
    squares = sum(size**2 for size in experiment.hidden_sizes)
    return kernels + products + squares * (experiment.model in RECURRENT)


def activations(experiment: Experiment, signature: Signature) -> int:
    """Returns the number of activations of one sample, or somewhat fewer."""
    steps = signature.input_shape[0] if experiment.model in RECURRENT else 1
    if experiment.model in TRANSFORMERS:
        # Images are cut into fewer steps than they have rows.
        inner = experiment.mlp_width or 4 * experiment.width
        return experiment.num_layers * inner
    pixels = math.prod(signature.input_shape[:2])
    channels = experiment.channels[:1] if experiment.model == "cnn" else ()
    images = pixels * sum(channels)
    return steps * sum(experiment.hidden_sizes) + images


def _check_kernel(experiment: Experiment, signature: Signature) -> None:
    if experiment.model != "cnn":
        return
    height, width, _ = signature.input_shape
    if experiment.kernel_size > max(height, width):
        raise UserError(
            f"--kernel_size: {experiment.kernel_size} is wider than the images of "
            f"--dataset={experiment.dataset}, {height} x {width}; choose a smaller one"
        )


def _flag(experiment: Experiment) -> str:
    if experiment.model in TRANSFORMERS:
        return "--width, --mlp_width, --num_layers"
    return (
        "--channels, --hidden_sizes" if experiment.model == "cnn" else "--hidden_sizes"
    )

"""What an experiment has, for the known differences and the records that need it.

Each function takes an experiment, or returns one that does, and is True if the
experiment has the trait.
"""

import itertools
from collections.abc import Callable

from jaxnn.experiment.catalogue import ADAM, OPTIMIZERS, facts_on
from jaxnn.experiment.flags.config import Experiment

Trait = Callable[[Experiment], bool]


def always(experiment: Experiment) -> bool:
    """True for every experiment."""
    del experiment
    return True


def is_fp16(experiment: Experiment) -> bool:
    """There is a loss scale."""
    return experiment.precision == "fp16"


def is_half(experiment: Experiment) -> bool:
    """The compute dtype is narrower than the masters'."""
    return experiment.precision in ("fp16", "bf16")


def is_model(*models: str) -> Trait:
    """The network is one of these."""
    return lambda experiment: experiment.model in models


def fits_line(experiment: Experiment) -> bool:
    """All that is learned is the weight and the bias of a line that is known."""
    return experiment.dataset == experiment.model == "linear"


def has_dropout(experiment: Experiment) -> bool:
    """Some unit is ever dropped."""
    return any(experiment.dropout_rates)


def normalizes(kind: str) -> Trait:
    """A layer has this normalization, "batch" or "layer"."""
    return lambda experiment: (
        kind
        in (
            experiment.normalization,
            facts_on(experiment.model).normalizes,
        )
    )


def activates(activation: str) -> Trait:
    """Hidden layers have the activation of this name by --activation."""
    return lambda experiment: (
        experiment.activation == activation and facts_on(experiment.model).activated
    )


def has_gelu(experiment: Experiment) -> bool:
    """A layer has the exact GELU, as every transformer does."""
    is_transformer = facts_on(experiment.model).family == "transformer"
    return is_transformer or activates("gelu")(experiment)


def has_square_kernel(experiment: Experiment) -> bool:
    """A dense kernel has as many rows as columns."""
    model = facts_on(experiment.model)
    if model.family == "transformer":
        return True
    pairs = itertools.pairwise(experiment.hidden_sizes)
    return model.activated and any(a == b for a, b in pairs)


def flattens_channels(experiment: Experiment) -> bool:
    """A dense layer follows a convolution of several channels."""
    return experiment.model == "cnn" and experiment.channels[-1] > 1


def is_cross_entropy(experiment: Experiment) -> bool:
    """The loss takes logits to probabilities."""
    return experiment.loss in ("cross_entropy", "binary_cross_entropy")


def accumulates(experiment: Experiment) -> bool:
    """A step has several microbatches."""
    return experiment.accumulation_steps > 1


def clips(experiment: Experiment) -> bool:
    """Gradients are clipped to a norm."""
    return experiment.clip_norm > 0


def is_adam(experiment: Experiment) -> bool:
    """The optimizer is Adam or AdamW."""
    return experiment.optimizer in ADAM


def decays_decoupled(experiment: Experiment) -> bool:
    """Parameters decay apart from the gradient, as in AdamW."""
    return experiment.optimizer == "adamw" and experiment.weight_decay > 0


def has_moments_from_zero(experiment: Experiment) -> bool:
    """The optimizer has moments, and they start at 0."""
    facts = OPTIMIZERS[experiment.optimizer]
    return bool(facts.moments) and not facts.initial


def has_schedule(experiment: Experiment) -> bool:
    """The learning rate changes over the run."""
    return experiment.schedule != "constant"


def scales_dynamically(experiment: Experiment) -> bool:
    """The loss scale moves with overflows."""
    return is_fp16(experiment) and not experiment.static_loss_scale

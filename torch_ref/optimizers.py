"""Optimizers by name, over a model's parameters. Twin of jaxnn/optimizers.py.

The learning rate is set before every step from the table that both stacks share.
"""

from collections.abc import Callable, Iterable

import torch

from jaxnn.experiment.config import Experiment


def sgd(experiment: Experiment, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    return torch.optim.SGD(params, lr=experiment.learning_rate)


def adam(experiment: Experiment, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root (Kingma & Ba 2015, Algorithm 1).

    DeepSpeed's FusedAdam, which a ds_config's "Adam" means, or torch's under `--nofused_adam`.
    """
    settings = dict(lr=experiment.learning_rate, betas=(experiment.adam_b1, experiment.adam_b2),
                    eps=experiment.adam_eps)
    if not experiment.fused_adam:
        return torch.optim.Adam(params, **settings)
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(params, **settings)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": sgd, "adam": adam}

MOMENT_KEYS: dict[str, dict[str, str]] = {"sgd": {}, "adam": {"first": "exp_avg", "second": "exp_avg_sq"}}
"""Optimizer -> {moment: its key in the torch optimizer's state}."""

"""Optimizers by name, over a model's parameters. Twin of jaxnn/optimizers.py.

The learning rate is set before every step from the table that both stacks share.
Clipping is the engine's (`gradient_clipping` of the ds_config). Penalties are added to
the gradient before the optimizer's rule: l2 is torch's own coupled `weight_decay` where
that is free, l1 and what is left are a hook on `step`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

TorchParams = Iterable[torch.nn.Parameter]


class EmaMomentum(torch.optim.Optimizer):
    """v <- mu v + (1 - mu) (g + weight_decay w), from v = 0; w <- w - lr v (MISMATCHES
    O5).

    torch's SGD with `dampening` is this from the second step on, but takes v = g at the
    first.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float, weight_decay: float = 0.0
    ):
        super().__init__(
            params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for param in (param for param in group["params"] if param.grad is not None):
                grad = param.grad.add(param, alpha=group["weight_decay"])
                state = self.state[param]
                average = state.setdefault("momentum_buffer", torch.zeros_like(param))
                average.mul_(group["momentum"]).add_(grad, alpha=1 - group["momentum"])
                param.sub_(average, alpha=group["lr"])


def sgd(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    return _coupled(experiment, params, torch.optim.SGD)


def momentum(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """v <- mu v + g, from v = 0: the heavy ball (Polyak 1964)."""
    return _coupled(experiment, params, torch.optim.SGD, momentum=_kept(experiment))


def nesterov(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """v <- mu v + g, then g + mu v: Nesterov's momentum at the shifted point (Sutskever
    et al. 2013)."""
    return _coupled(
        experiment, params, torch.optim.SGD, momentum=_kept(experiment), nesterov=True
    )


def ema_momentum(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """v <- mu v + (1 - mu) g, from v = 0 and not corrected for it: the moving average."""
    return _coupled(experiment, params, EmaMomentum, momentum=experiment.momentum)


def adam(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root (Kingma &
    Ba 2015, Algorithm 1).

    DeepSpeed's FusedAdam without its AdamW mode, or torch's under `--nofused_adam`.
    """
    if not experiment.fused_adam:
        return _coupled(
            experiment, params, torch.optim.Adam, **_adam_settings(experiment)
        )
    return _coupled(
        experiment, params, _fused_adam, adam_w_mode=False, **_adam_settings(experiment)
    )


def adamw(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """Adam's direction + weight_decay w (Loshchilov & Hutter 2019).

    DeepSpeed's FusedAdam, which a ds_config's "Adam" means (MISMATCHES D6), or torch's
    under `--nofused_adam`.
    """
    kind = _fused_adam if experiment.fused_adam else torch.optim.AdamW
    optimizer = kind(
        groups(experiment, params),
        lr=experiment.learning_rate,
        weight_decay=experiment.weight_decay,
        **_adam_settings(experiment),
    )
    return _with_penalty(optimizer, experiment.l1, experiment.l2)


def rmsprop(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps), from v = 0 (Hinton 2012)."""
    return _coupled(
        experiment,
        params,
        torch.optim.RMSprop,
        alpha=experiment.rmsprop_decay,
        eps=experiment.rmsprop_eps,
    )


def adagrad(experiment: Experiment, params: TorchParams) -> torch.optim.Optimizer:
    """s <- s + g^2, then g / (sqrt(s) + eps), from s = adagrad_initial (Duchi et al.
    2011).

    Raises:
      UserError: l1, or l2 on some parameters only. DeepSpeed's ZeRO builds this
        optimizer anew from its defaults, and would drop the hook and the second group
        without a word.
    """
    if experiment.l1:
        raise UserError(
            "--l1: under DeepSpeed, --optimizer=adagrad has no l1; leave it out or "
            "choose another"
        )
    if experiment.l2 and not experiment.decay_all:
        raise UserError(
            "--nodecay_all: under DeepSpeed, --optimizer=adagrad decays every "
            "parameter; use --decay_all or another optimizer"
        )
    return _coupled(
        experiment,
        params,
        torch.optim.Adagrad,
        eps=experiment.adagrad_eps,
        initial_accumulator_value=experiment.adagrad_initial,
    )


def _coupled(
    experiment: Experiment, params: TorchParams, kind: Callable, **settings: Any
) -> torch.optim.Optimizer:
    """An optimizer whose own weight_decay is coupled: l2."""
    optimizer = kind(
        groups(experiment, params),
        lr=experiment.learning_rate,
        weight_decay=experiment.l2,
        **settings,
    )
    return _with_penalty(optimizer, experiment.l1, 0)


def groups(experiment: Experiment, params: TorchParams) -> list[dict[str, Any]]:
    """Parameter groups: what decays, then, under `--nodecay_all`, what does not: biases
    and norm scales are vectors."""
    params = list(params)
    if experiment.decay_all or not (
        experiment.l1 or experiment.l2 or experiment.weight_decay
    ):
        return [{"params": params, "penalized": True}]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "penalized": True},
        {
            "params": [p for p in params if p.ndim <= 1],
            "penalized": False,
            "weight_decay": 0.0,
        },
    ]
    return [group for group in groups if group["params"]]


def _with_penalty(
    optimizer: torch.optim.Optimizer, l1: float, l2: float
) -> torch.optim.Optimizer:
    """Adds l1 sign(w) + l2 w to the gradients at the beginning of every `step`."""

    @torch.no_grad()
    def add(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        for group in optimizer.param_groups:
            for param in group["params"] if group["penalized"] else ():
                if param.grad is not None:
                    param.grad = param.grad + l1 * param.sign() + l2 * param

    if l1 or l2:
        optimizer.register_step_pre_hook(add)
    return optimizer


def _kept(experiment: Experiment) -> float:
    """The momentum; torch keeps no buffer at 0, which a trace would lack."""
    if not experiment.momentum:
        raise UserError(
            f"--momentum: at 0, --optimizer={experiment.optimizer} is sgd in torch; "
            "use --optimizer=sgd"
        )
    return experiment.momentum


def _adam_settings(experiment: Experiment) -> dict[str, Any]:
    return dict(betas=(experiment.adam_b1, experiment.adam_b2), eps=experiment.adam_eps)


def _fused_adam(*args: Any, **settings: Any) -> torch.optim.Optimizer:
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(*args, **settings)


OPTIMIZERS: dict[str, Callable[[Experiment, TorchParams], torch.optim.Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "ema_momentum": ema_momentum,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
}

MOMENT_KEYS: dict[str, dict[str, str]] = {
    "sgd": {},
    "momentum": {"first": "momentum_buffer"},
    "nesterov": {"first": "momentum_buffer"},
    "ema_momentum": {"first": "momentum_buffer"},
    "adam": {"first": "exp_avg", "second": "exp_avg_sq"},
    "adamw": {"first": "exp_avg", "second": "exp_avg_sq"},
    "rmsprop": {"second": "square_avg"},
    "adagrad": {"second": "sum"},
}
"""Optimizer -> {moment: its key in the torch optimizer's state}."""

"""Optimizers by name, over a model's parameters. Twin of jaxnn/optimizers.py.

A factory returns a torch optimizer, whose learning rate is set before every step from
the table that both stacks share. Every step does the same four things, in the order of
torch under DeepSpeed:

    g <- clip(g, clip_norm)                 (`gradient_clipping` of the engine)
    g <- g + l1 sign(w) + l2 w
    d <- the optimizer's rule
    d <- d + weight_decay w                 (adamw)

`sutskever_momentum` alone has the rate inside d, w <- w - d.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.deepspeed import passing

TorchParams = Iterable[torch.nn.Parameter]


class Velocity(Optimizer):
    """An optimizer whose state is one velocity a parameter, from v = 0."""

    def __init__(
        self, params: Any, lr: float, momentum: float, weight_decay: float = 0.0
    ):
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, param.grad, group)

    def _update(
        self, param: torch.nn.Parameter, grad: torch.Tensor, group: dict[str, Any]
    ) -> None:
        grad = grad.add(param, alpha=group["weight_decay"])
        state = self.state[param]
        velocity = state.setdefault("momentum_buffer", torch.zeros_like(param))
        self._move(param, velocity, grad, group)

    def _move(
        self,
        param: torch.Tensor,
        velocity: torch.Tensor,
        grad: torch.Tensor,
        group: dict[str, Any],
    ) -> None:
        """Updates velocity and parameter in place, from the gradient with its decay."""
        raise NotImplementedError


class EmaMomentum(Velocity):
    """v <- mu v + (1 - mu) (g + weight_decay w), from v = 0; w <- w - lr v.

    MISMATCHES O5.
    """

    # torch's SGD with `dampening` is this from the second step on, but takes v = g at
    # the first.

    def _move(self, param, velocity, grad, group) -> None:
        velocity.mul_(group["momentum"]).add_(grad, alpha=1 - group["momentum"])
        param.sub_(velocity, alpha=group["lr"])


class SutskeverMomentum(Velocity):
    """v <- mu v - lr (g + weight_decay w), from v = 0; w <- w + v.

    MISMATCHES O6.
    """

    def _move(self, param, velocity, grad, group) -> None:
        velocity.mul_(group["momentum"]).sub_(grad, alpha=group["lr"])
        param.add_(velocity)


def sgd(experiment: Experiment, params: TorchParams) -> Optimizer:
    """The gradient itself (Robbins & Monro 1951)."""
    return regularized(experiment, params, torch.optim.SGD)


def momentum(experiment: Experiment, params: TorchParams) -> Optimizer:
    """v <- mu v + g, from v = 0: the heavy ball (Polyak 1964)."""
    mu = _positive_momentum(experiment)
    return regularized(experiment, params, torch.optim.SGD, momentum=mu)


def nesterov(experiment: Experiment, params: TorchParams) -> Optimizer:
    """v <- mu v + g, then g + mu v: Nesterov's momentum at the shifted point.

    Sutskever et al. 2013, in torch's form.
    """
    mu = _positive_momentum(experiment)
    return regularized(experiment, params, torch.optim.SGD, momentum=mu, nesterov=True)


def ema_momentum(experiment: Experiment, params: TorchParams) -> Optimizer:
    """v <- mu v + (1 - mu) g, from v = 0: the moving average (MISMATCHES O5).

    It is not corrected for its start at 0.
    """
    return regularized(experiment, params, EmaMomentum, momentum=experiment.momentum)


def sutskever_momentum(experiment: Experiment, params: TorchParams) -> Optimizer:
    """v <- mu v - lr g, from v = 0, then w <- w + v: the rate inside the velocity.

    Sutskever et al. 2013, equations 1 and 2. As `momentum` at a constant rate; where it
    changes, each gradient keeps the rate of its own step (MISMATCHES O6).
    """
    mu = experiment.momentum
    return regularized(experiment, params, SutskeverMomentum, momentum=mu)


def adam(experiment: Experiment, params: TorchParams) -> Optimizer:
    """m_hat / (sqrt(v_hat) + eps), both bias-corrected, eps outside the root.

    Kingma & Ba 2015, Algorithm 1. `--fused_adam` is DeepSpeed's FusedAdam without its
    AdamW mode, `--nofused_adam` torch's Adam.
    """
    settings = _given_adam_settings(experiment)
    if experiment.fused_adam:
        kind = deepspeeds_adam(experiment)
        return regularized(experiment, params, kind, adam_w_mode=False, **settings)
    return regularized(experiment, params, torch.optim.Adam, **settings)


def adamw(experiment: Experiment, params: TorchParams) -> Optimizer:
    """Adam's direction + weight_decay w (Loshchilov & Hutter 2019).

    The decay does not pass through the moments. DeepSpeed's FusedAdam, which the "Adam"
    of a ds_config means (MISMATCHES D6), or torch's AdamW under `--nofused_adam`.
    """
    is_fused = experiment.fused_adam
    kind = deepspeeds_adam(experiment) if is_fused else torch.optim.AdamW
    settings = _given_adam_settings(experiment)
    return regularized(experiment, params, kind, is_decoupled=True, **settings)


def adam_settings(experiment: Experiment) -> tuple[float, float, float]:
    """Returns Adam's two decay rates and eps as the optimizer computes with them."""
    # FusedAdam takes them as float32 (csrc/includes/cpu_adam.h), torch as double. The
    # float32 1 - 0.999 is 0.00099998713, which moves the second moment by 1.3e-5 of
    # itself.
    rounded = np.float32 if experiment.fused_adam else float
    b1 = float(rounded(experiment.adam_b1))
    b2 = float(rounded(experiment.adam_b2))
    eps = float(rounded(experiment.adam_eps))
    return b1, b2, eps


def rmsprop(experiment: Experiment, params: TorchParams) -> Optimizer:
    """v <- a v + (1 - a) g^2, then g / (sqrt(v) + eps), from v = 0 (Hinton 2012)."""
    return regularized(
        experiment,
        params,
        torch.optim.RMSprop,
        alpha=experiment.rmsprop_decay,
        eps=experiment.rmsprop_eps,
    )


def adagrad(experiment: Experiment, params: TorchParams) -> Optimizer:
    """s <- s + g^2, then g / (sqrt(s) + eps), from s = adagrad_initial.

    Duchi et al. 2011.

    Raises:
      UserError: l1, or l2 on some parameters only.
    """
    # DeepSpeed's ZeRO builds this optimizer anew from its defaults, and would silently
    # drop the hook and the second group.
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
    return regularized(
        experiment,
        params,
        torch.optim.Adagrad,
        eps=experiment.adagrad_eps,
        initial_accumulator_value=experiment.adagrad_initial,
    )


def regularized(
    experiment: Experiment,
    params: TorchParams,
    kind: Callable[..., Optimizer],
    is_decoupled: bool = False,
    **settings: Any,
) -> Optimizer:
    """Builds an optimizer with l1, l2 and decoupled decay; clipping is the engine's.

    Args:
      experiment: rate, l1, l2, weight decay, and which parameters decay.
      params: parameters of the model.
      kind: torch.optim class, or a function called as one.
      is_decoupled: True if the `weight_decay` of `kind` is added to the direction,
        False if it is added to the gradient, as l2 is.
      **settings: further arguments of `kind`.
    """
    optimizer = kind(
        groups(experiment, params),
        lr=experiment.learning_rate,
        weight_decay=experiment.weight_decay if is_decoupled else experiment.l2,
        **settings,
    )
    return _with_penalty(optimizer, experiment.l1, experiment.l2 if is_decoupled else 0)


def groups(experiment: Experiment, params: TorchParams) -> list[dict[str, Any]]:
    """Returns parameter groups: what decays, then what does not, without empty ones."""
    params = list(params)
    penalties = (experiment.l1, experiment.l2, experiment.weight_decay)
    # One group where a second makes no difference: DeepSpeed flattens each on its own.
    if experiment.decay_all or not any(penalties):
        return [{"params": params, "penalized": True}]

    decayed = [param for param in params if is_decayed(experiment, param)]
    others = [param for param in params if not is_decayed(experiment, param)]
    both = [
        {"params": decayed, "penalized": True},
        {"params": others, "penalized": False, "weight_decay": 0.0},
    ]
    return [group for group in both if group["params"]]


def is_decayed(experiment: Experiment, param: torch.nn.Parameter) -> bool:
    """Returns True if l1, l2 and weight decay act on a parameter.

    Args:
      experiment: says if all parameters decay.
      param: biases and the scales of normalization are vectors.
    """
    return experiment.decay_all or param.ndim > 1


def fused_adam(*args: Any, **settings: Any) -> Optimizer:
    """DeepSpeed's FusedAdam, compiled at first use."""
    # Importing DeepSpeed takes seconds.
    from deepspeed.ops.adam import FusedAdam

    return FusedAdam(*args, **settings)


def cpu_adam(*args: Any, adam_w_mode: bool = True, **settings: Any) -> Optimizer:
    """DeepSpeed's Adam for a state that is offloaded to the CPU, compiled likewise."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam(*args, adamw_mode=adam_w_mode, **settings)


def deepspeeds_adam(experiment: Experiment) -> Callable[..., Optimizer]:
    """Returns the Adam that DeepSpeed would build itself."""
    extra = passing.from_flag(experiment.ds_extra)
    return cpu_adam if passing.is_offloaded(extra) else fused_adam


def _with_penalty(optimizer: Optimizer, l1: float, l2: float) -> Optimizer:
    """Adds l1 sign(w) + l2 w to the gradients at the beginning of every `step`."""

    @torch.no_grad()
    def add(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                if group["penalized"] and param.grad is not None:
                    param.grad = param.grad + l1 * param.sign() + l2 * param

    if l1 or l2:
        optimizer.register_step_pre_hook(add)
    return optimizer


def _positive_momentum(experiment: Experiment) -> float:
    # At 0 torch keeps no buffer, which the trace's moments would lack.
    if not experiment.momentum:
        raise UserError(
            f"--momentum: at 0, --optimizer={experiment.optimizer} is sgd in torch; "
            "use --optimizer=sgd"
        )
    return experiment.momentum


def _given_adam_settings(experiment: Experiment) -> dict[str, Any]:
    # In double: FusedAdam rounds them itself, and a checkpoint holds what was given.
    return dict(betas=(experiment.adam_b1, experiment.adam_b2), eps=experiment.adam_eps)


OPTIMIZERS: dict[str, Callable[[Experiment, TorchParams], Optimizer]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "ema_momentum": ema_momentum,
    "sutskever_momentum": sutskever_momentum,
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
    "sutskever_momentum": {"first": "momentum_buffer"},
    "adam": {"first": "exp_avg", "second": "exp_avg_sq"},
    "adamw": {"first": "exp_avg", "second": "exp_avg_sq"},
    "rmsprop": {"second": "square_avg"},
    "adagrad": {"second": "sum"},
}
"""Optimizer -> {moment: its key in the state of a torch parameter}."""

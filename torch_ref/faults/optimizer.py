"""Faults in the optimizer's half of a step."""

from collections.abc import Callable
from typing import Any

import torch

from jaxnn.experiment.catalogue import ADAM
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import clips, decays_decoupled, is_adam, is_fp16, is_half
from torch_ref import engine_readers
from torch_ref.faults.fault import STEP, Fault, Scene
from torch_ref.faults.objective import world_size
from torch_ref.optimizers import adam_settings
from torch_ref.precision import DTYPES

CLIP_EPS = 1e-6
"""DeepSpeed's constant beside the norm that clipping divides by."""

Direction = Callable[[Experiment, torch.Tensor, dict[str, Any]], torch.Tensor]
"""(experiment, gradient with penalties, state after the update) -> direction."""

Change = Callable[
    [Scene, dict[str, Any], torch.nn.Parameter, torch.Tensor], torch.Tensor
]
"""(scene, parameter group, parameter after the step, its value before) -> new value."""


def _after_step(change: Change):
    """Plants another update of the parameters; the state is updated as before."""

    def plant(scene: Scene) -> tuple[Patch, ...]:
        optimizer = engine_readers.inner_optimizer(scene.engine)

        def make(plain):
            @torch.no_grad()
            def step(*args, **kwargs):
                pairs = [
                    (group, param)
                    for group in optimizer.param_groups
                    for param in group["params"]
                    if param.grad is not None
                ]
                before = [param.clone() for _, param in pairs]
                plain(*args, **kwargs)
                for (group, param), start in zip(pairs, before):
                    param.copy_(change(scene, group, param, start))

            return step

        return (Patch(optimizer, "step", make),)

    return plant


def _along(direction: Direction):
    """Plants w <- w - lr (direction + weight_decay w), the last term in AdamW alone."""

    def change(scene, group, param, start):
        experiment = scene.experiment
        decay = group["weight_decay"] * start
        state = engine_readers.inner_optimizer(scene.engine).state[param]
        if experiment.optimizer == "adamw":
            towards = direction(experiment, param.grad, state) + decay
        else:
            towards = direction(experiment, param.grad + decay, state)
        return start - group["lr"] * towards

    return _after_step(change)


def _velocity(move: Callable[[torch.Tensor, torch.Tensor, float, float], float]):
    """Plants another momentum, on the velocity as the optimizer keeps it.

    Args:
      move: (velocity, to be updated in place, gradient with penalties, momentum,
        learning rate) -> what the velocity is subtracted with.
    """

    def plant(scene: Scene) -> tuple[Patch, ...]:
        optimizer = engine_readers.inner_optimizer(scene.engine)

        def kept(param):
            return optimizer.state[param].get("momentum_buffer", torch.zeros(()))

        def make(plain):
            @torch.no_grad()
            def step(*args, **kwargs):
                trained = [
                    (group, param, param.clone(), kept(param).clone())
                    for group in optimizer.param_groups
                    for param in group["params"]
                    if param.grad is not None
                ]
                plain(*args, **kwargs)
                for group, param, start, velocity in trained:
                    grad = param.grad + group["weight_decay"] * start
                    kept(param).copy_(velocity)
                    factor = move(kept(param), grad, group["momentum"], group["lr"])
                    param.copy_(start).sub_(kept(param), alpha=factor)

            return step

        return (Patch(optimizer, "step", make),)

    return plant


def _rate_inside(velocity, grad, mu, rate) -> float:
    velocity.mul_(mu).add_(grad, alpha=rate)
    return 1.0


def _rate_outside(velocity, grad, mu, rate) -> float:
    velocity.mul_(mu).sub_(grad)
    # Sutskever's velocity points down, torch's up.
    return -rate


def _eps_inside(
    experiment: Experiment, grad: torch.Tensor, state: dict[str, Any]
) -> torch.Tensor:
    if is_adam(experiment):
        first, second = _corrected(experiment, state, int(state["step"]))
        *_, eps = adam_settings(experiment)
        return first / torch.sqrt(second + eps)
    if experiment.optimizer == "rmsprop":
        return grad / torch.sqrt(state["square_avg"] + experiment.rmsprop_eps)
    # optax's scale_by_rss leaves a parameter alone whose sum is 0.
    total = state["sum"]
    return torch.where(total > 0, grad / torch.sqrt(total + experiment.adagrad_eps), 0)


def _uncorrected(
    experiment: Experiment, grad: torch.Tensor, state: dict[str, Any]
) -> torch.Tensor:
    del grad
    *_, eps = adam_settings(experiment)
    return state["exp_avg"] / (torch.sqrt(state["exp_avg_sq"]) + eps)


def _corrected_late(
    experiment: Experiment, grad: torch.Tensor, state: dict[str, Any]
) -> torch.Tensor:
    del grad
    first, second = _corrected(experiment, state, int(state["step"]) + 1)
    *_, eps = adam_settings(experiment)
    return first / (torch.sqrt(second) + eps)


def _corrected(
    experiment: Experiment, state: dict[str, Any], updates: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adam's two moments, corrected for a number of updates."""
    b1, b2, _ = adam_settings(experiment)
    return state["exp_avg"] / (1 - b1**updates), state["exp_avg_sq"] / (1 - b2**updates)


def _decay_without_rate(scene, group, param, start) -> torch.Tensor:
    del scene
    # The optimizer has subtracted lr weight_decay w already.
    return param + (group["lr"] - 1) * group["weight_decay"] * start


def _rounded(scene, group, param, start) -> torch.Tensor:
    del group, start
    return param.to(DTYPES[scene.experiment.precision]).float()


def _clipping(clip: Callable[[torch.Tensor, torch.Tensor, float, float], torch.Tensor]):
    """Plants another clipping in place of DeepSpeed's `unscale_and_clip_grads`.

    Args:
      clip: (unscaled gradient of one parameter, norm of all gradients, largest norm,
        loss scale) -> clipped gradient.
    """

    def plant(scene: Scene) -> tuple[Patch, ...]:
        optimizer = scene.engine.optimizer
        largest = scene.experiment.clip_norm

        def unscale_and_clip(flat_grads, scaled_norm):
            scale = optimizer.loss_scale
            for flat in flat_grads:
                for grad in _by_parameter(optimizer, flat):
                    clipped = clip(grad / scale, scaled_norm / scale, largest, scale)
                    grad.copy_(clipped)

        return (
            Patch(optimizer, "unscale_and_clip_grads", lambda plain: unscale_and_clip),
        )

    return plant


def _by_parameter(optimizer: Any, flat: torch.Tensor) -> list[torch.Tensor]:
    """Splits a group's flat gradient into views, one a parameter, without padding."""
    group = next(
        params
        for params, masters in zip(
            optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups
        )
        if masters.grad is flat
    )
    # A parameter without a mapping lies in another rank's partition.
    places = [
        param._hp_mapping.get_hp_fragment_address()
        for param in group
        if param._hp_mapping
    ]
    return [flat.narrow(0, place.start, place.numel) for place in places]


def _clipped(grad: torch.Tensor, norm: torch.Tensor, largest: float) -> torch.Tensor:
    """DeepSpeed's formula (MISMATCHES D7)."""
    return grad / torch.clamp((norm + CLIP_EPS) / largest, min=1)


FAULTS = [
    # The rule.
    Fault(
        "eps_inside_root",
        STEP,
        "--optimizer=adam, adamw, rmsprop or adagrad",
        lambda e: e.optimizer in (*ADAM, "rmsprop", "adagrad"),
        _along(_eps_inside),
    ),
    Fault(
        "bias_correction_missing",
        STEP,
        "--optimizer=adam or adamw",
        is_adam,
        _along(_uncorrected),
    ),
    Fault(
        "bias_correction_late",
        STEP,
        "--optimizer=adam or adamw",
        is_adam,
        _along(_corrected_late),
    ),
    Fault(
        "decay_not_times_rate",
        STEP,
        "--optimizer=adamw and --weight_decay",
        decays_decoupled,
        _after_step(_decay_without_rate),
    ),
    Fault(
        "rate_inside_velocity",
        STEP,
        "--optimizer=momentum",
        lambda e: e.optimizer == "momentum",
        _velocity(_rate_inside),
    ),
    Fault(
        "rate_outside_velocity",
        STEP,
        "--optimizer=sutskever_momentum",
        lambda e: e.optimizer == "sutskever_momentum",
        _velocity(_rate_outside),
    ),
    # Clipping.
    Fault(
        "clip_without_eps",
        STEP,
        "--clip_norm",
        clips,
        _clipping(
            lambda grad, norm, largest, scale: grad / torch.clamp(norm / largest, min=1)
        ),
    ),
    Fault(
        "clip_before_unscale",
        STEP,
        "--precision=fp16 and --clip_norm",
        lambda e: is_fp16(e) and clips(e),
        _clipping(
            lambda grad, norm, largest, scale: _clipped(grad, norm * scale, largest)
        ),
    ),
    Fault(
        "clip_by_tensor",
        STEP,
        "--clip_norm and a single rank",
        lambda e: clips(e) and world_size() == 1,
        _clipping(
            lambda grad, norm, largest, scale: _clipped(
                grad, torch.linalg.vector_norm(grad), largest
            )
        ),
    ),
    Fault(
        "clip_by_value",
        STEP,
        "--clip_norm",
        clips,
        _clipping(lambda grad, norm, largest, scale: grad.clamp(-largest, largest)),
    ),
    Fault(
        "clip_normalizes",
        STEP,
        "--clip_norm",
        clips,
        _clipping(
            lambda grad, norm, largest, scale: grad / ((norm + CLIP_EPS) / largest)
        ),
    ),
    # Masters.
    Fault(
        "half_precision_masters",
        STEP,
        "--precision=fp16 or bf16",
        is_half,
        _after_step(_rounded),
    ),
]

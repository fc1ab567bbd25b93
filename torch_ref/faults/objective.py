"""Faults in the loss and its gradients: scale, reduction, accumulation, dropout, what
the forward pass starts from."""

import os
from collections.abc import Callable

import torch
from torch.nn import functional

from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.flags.consistency import RECURRENT
from jaxnn.experiment.patches import Patch
from torch_ref import engine as engines
from torch_ref import engine_readers, losses, train_step
from torch_ref.faults.fault import STEP, Fault, Scene
from torch_ref.faults.schedule import always, is_fp16
from torch_ref.models import cnn, mlp, rnn, transformer


def _unscaled_twice(scene: Scene) -> tuple[Patch, ...]:
    """By the scale that the loss had, before DeepSpeed may raise it and before it
    clips."""
    optimizer, held = scene.engine.optimizer, {}

    def make_step(plain):
        def step(engine, number):
            held["scale"] = engine_readers.loss_scale(engine)
            return plain(engine, number)

        return step

    def make_unscale(plain):
        def unscale(flat_grads, norm):
            return plain(
                [flat.div_(held["scale"]) for flat in flat_grads], norm / held["scale"]
            )

        return unscale

    return Patch(engines, "step", make_step), Patch(
        optimizer, "unscale_and_clip_grads", make_unscale
    )


def _loss_times(factor: Callable[[Experiment, torch.Tensor], float]):
    """Plants a loss that is multiplied by factor(experiment, samples of the global
    batch)."""

    def make(plain):
        def objective(experiment, model, batch, step, rank, world_size, part=0):
            samples = train_step.sum_over(batch.weights.sum(), world_size)
            loss = plain(experiment, model, batch, step, rank, world_size, part)
            return loss * factor(experiment, samples)

        return objective

    return lambda scene: (Patch(train_step, "objective", make),)


def _gradients_times(factor: Callable[[Experiment, bool], float]):
    """Plants gradients that are multiplied, while the loss that is reported is not.

    Args:
      factor: (experiment, whether this is the last part of a step) -> number.
    """

    def plant(scene: Scene) -> tuple[Patch, ...]:
        def make(plain):
            def backward(engine, loss):
                plain(
                    engine,
                    loss
                    * factor(
                        scene.experiment, engine.is_gradient_accumulation_boundary()
                    ),
                )

            return backward

        return (Patch(engines, "backward", make),)

    return plant


def _gradients_not_zeroed(scene: Scene) -> tuple[Patch, ...]:
    from deepspeed.utils import safe_set_full_grad

    held: dict[str, torch.Tensor] = {}

    def make(plain):
        def backward(experiment, engine, *args):
            loss = plain(experiment, engine, *args)
            scale = engine_readers.loss_scale(engine)
            if held and scene.has_begun:
                for name, grad in engine_readers.gradients(engine).items():
                    safe_set_full_grad(
                        engine.module.get_parameter(name), (grad + held[name]) * scale
                    )
            held.update(
                {
                    name: grad.clone()
                    for name, grad in engine_readers.gradients(engine).items()
                }
            )
            return loss

        return backward

    return (Patch(train_step, "backward", make),)


def _stale_parameters(scene: Scene) -> tuple[Patch, ...]:
    held: list[torch.Tensor] = []

    def make(plain):
        def backward(experiment, engine, *args):
            params = list(engine.module.parameters())
            fresh = [param.detach().clone() for param in params]
            if held and scene.has_begun:
                _assign(params, held)
            loss = plain(experiment, engine, *args)
            _assign(params, fresh)
            held[:] = fresh
            return loss

        return backward

    return (Patch(train_step, "backward", make),)


def _assign(params: list[torch.nn.Parameter], values: list[torch.Tensor]) -> None:
    for param, value in zip(params, values):
        param.data.copy_(value)


def _dropout_not_divided(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        def dropout(x, rate, layer, source):
            kept = plain(x, rate, layer, source)
            return (
                kept if source is None or rate == 0 else kept * x.new_tensor(1 - rate)
            )

        return dropout

    return tuple(
        Patch(module, "dropout", make) for module in (mlp, cnn, rnn, transformer)
    )


def _dropout_mask_reused(scene: Scene) -> tuple[Patch, ...]:
    del scene
    return (
        Patch(
            train_step,
            "mask_source",
            lambda plain: lambda seed, step, *args: plain(seed, 0, *args),
        ),
    )


def _probabilities_as_logits(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        def build(name, label_smoothing=0.0):
            loss = plain(name, label_smoothing)
            if name == "binary_cross_entropy":
                return lambda outputs, targets: loss(torch.sigmoid(outputs), targets)
            return lambda outputs, targets: loss(
                torch.softmax(outputs, dim=-1), targets
            )

        return build

    return (Patch(losses, "build", make),)


def _in_bf16(scene: Scene) -> tuple[Patch, ...]:
    """What autocast does: matrix products and convolutions in bfloat16, everything else
    as it was."""
    del scene

    def make(plain):
        def product(x, weight, bias=None, *args):
            low = [
                None if tensor is None else tensor.bfloat16()
                for tensor in (x, weight, bias)
            ]
            return plain(*low, *args).to(x.dtype)

        return product

    return tuple(Patch(functional, name, make) for name in ("linear", "conv2d"))


def _has_dropout(experiment: Experiment) -> bool:
    return any(experiment.dropout_rates)


def _accumulates(experiment: Experiment) -> bool:
    return experiment.accumulation_steps > 1


def world_size() -> int:
    """Ranks of the launcher; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


FAULTS = [
    Fault("unscaled_twice", STEP, "--precision=fp16", is_fp16, _unscaled_twice),
    Fault(
        "loss_summed",
        STEP,
        "nothing",
        always,
        _loss_times(lambda experiment, samples: samples),
    ),
    Fault(
        "half_factor",
        STEP,
        "--loss=mse",
        lambda e: e.loss == "mse",
        _loss_times(lambda experiment, samples: 0.5),
    ),
    Fault(
        "padding_counted",
        STEP,
        "nothing",
        always,
        _loss_times(lambda experiment, samples: samples / experiment.batch_size),
    ),
    Fault(
        "accumulation_not_averaged",
        STEP,
        "--accumulation_steps",
        _accumulates,
        _gradients_times(lambda experiment, is_last: experiment.accumulation_steps),
    ),
    Fault(
        "last_part_only",
        STEP,
        "--accumulation_steps",
        _accumulates,
        _gradients_times(lambda experiment, is_last: float(is_last)),
    ),
    Fault(
        "ranks_summed",
        STEP,
        "several ranks: run it under the deepspeed launcher",
        lambda e: world_size() > 1,
        _gradients_times(lambda experiment, is_last: world_size()),
    ),
    Fault(
        "gradients_not_zeroed",
        STEP,
        "nothing",
        always,
        _gradients_not_zeroed,
        watches=1,
    ),
    Fault("stale_parameters", STEP, "nothing", always, _stale_parameters, watches=1),
    Fault(
        "dropout_not_divided",
        STEP,
        "--dropout_rates",
        _has_dropout,
        _dropout_not_divided,
    ),
    Fault(
        "dropout_mask_reused",
        STEP,
        "--dropout_rates",
        _has_dropout,
        _dropout_mask_reused,
    ),
    Fault(
        "computed_in_bf16",
        STEP,
        "--precision=fp32 and a model that is not recurrent",
        lambda e: e.precision == "fp32" and e.model not in RECURRENT,
        _in_bf16,
    ),
    Fault(
        "probabilities_as_logits",
        STEP,
        "--loss=cross_entropy or binary_cross_entropy",
        lambda e: e.loss in ("cross_entropy", "binary_cross_entropy"),
        _probabilities_as_logits,
    ),
]

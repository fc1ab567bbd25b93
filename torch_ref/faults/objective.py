"""Faults in the loss and its gradients: scale, reduction, accumulation, dropout.

The plants come first, then what experiments they need, then the table.
"""

import os
from collections.abc import Callable

import torch
from torch.nn import functional

from jaxnn.experiment.catalogue import RECURRENT
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    accumulates,
    always,
    has_dropout,
    is_cross_entropy,
    is_fp16,
)
from torch_ref import engine as engines
from torch_ref import engine_readers, losses, train_step
from torch_ref.faults.fault import STEP, Fault, Scene
from torch_ref.models import cnn, mlp, rnn, transformer


def _unscaled_twice(scene: Scene) -> tuple[Patch, ...]:
    optimizer = scene.engine.optimizer
    held: dict[str, float] = {}

    # The scale that the loss had: DeepSpeed may raise it within the step, before it
    # clips (MISMATCHES D3).
    def make_step(plain):
        def step(engine, number):
            held["scale"] = engine_readers.loss_scale(engine)
            return plain(engine, number)

        return step

    def make_unscale(plain):
        def unscale(flat_grads, norm):
            divided = [flat.div_(held["scale"]) for flat in flat_grads]
            return plain(divided, norm / held["scale"])

        return unscale

    return (
        Patch(engines, "step", make_step),
        Patch(optimizer, "unscale_and_clip_grads", make_unscale),
    )


def _loss_times(factor: Callable[[Experiment, torch.Tensor], torch.Tensor | float]):
    """Plants a loss that is multiplied by a factor.

    Args:
      factor: (experiment, number of samples of the global batch) -> factor.
    """

    def make(plain):
        def objective(experiment, model, batch, step, rank, world_size, *microbatch):
            samples = train_step.sum_over(batch.weights.sum(), world_size)
            loss = plain(experiment, model, batch, step, rank, world_size, *microbatch)
            return loss * factor(experiment, samples)

        return objective

    return lambda scene: (Patch(train_step, "objective", make),)


def _gradients_times(factor: Callable[[Experiment, bool], float]):
    """Plants gradients that are multiplied by a factor; the reported loss is not.

    Args:
      factor: (experiment, True for the last microbatch of a step) -> factor.
    """

    def plant(scene: Scene) -> tuple[Patch, ...]:
        def make(plain):
            def backward(engine, loss):
                is_last = engine.is_gradient_accumulation_boundary()
                plain(engine, loss * factor(scene.experiment, is_last))

            return backward

        return (Patch(engines, "backward", make),)

    return plant


def _gradients_not_zeroed(scene: Scene) -> tuple[Patch, ...]:
    # Importing DeepSpeed takes seconds.
    from deepspeed.utils import safe_set_full_grad

    held: dict[str, torch.Tensor] = {}

    def make(plain):
        def backward(experiment, engine, *args):
            loss = plain(experiment, engine, *args)
            scale = engine_readers.loss_scale(engine)
            if held and scene.has_begun:
                for name, grad in engine_readers.gradients(engine).items():
                    param = engine.module.get_parameter(name)
                    # The reader unscales, DeepSpeed holds scaled gradients.
                    safe_set_full_grad(param, (grad + held[name]) * scale)
            for name, grad in engine_readers.gradients(engine).items():
                held[name] = grad.clone()
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
            # The update starts from the fresh parameters.
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
            if source is None or rate == 0:
                return kept
            return kept * x.new_tensor(1 - rate)

        return dropout

    # Each of these modules has imported the function under its own name.
    modules = (mlp, cnn, rnn, transformer)
    return tuple(Patch(module, "dropout", make) for module in modules)


def _dropout_mask_reused(scene: Scene) -> tuple[Patch, ...]:
    del scene

    def make(plain):
        return lambda seed, step, *args: plain(seed, 0, *args)

    return (Patch(train_step, "mask_source", make),)


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
    """Plants autocast: matrix products and convolutions in bfloat16, nothing else."""
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


def world_size() -> int:
    """Returns the number of ranks of the launcher; 1 without one."""
    # Asked before the process group exists.
    return int(os.environ.get("WORLD_SIZE", "1"))


FAULTS = [
    # Scale and reduction.
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
    # Accumulation and ranks.
    Fault(
        "accumulation_not_averaged",
        STEP,
        "--accumulation_steps",
        accumulates,
        _gradients_times(lambda experiment, is_last: experiment.accumulation_steps),
    ),
    Fault(
        "last_part_only",
        STEP,
        "--accumulation_steps",
        accumulates,
        _gradients_times(lambda experiment, is_last: float(is_last)),
    ),
    Fault(
        "ranks_summed",
        STEP,
        "several ranks: run it under the deepspeed launcher",
        lambda e: world_size() > 1,
        _gradients_times(lambda experiment, is_last: world_size()),
    ),
    # What is left of the step before.
    Fault(
        "gradients_not_zeroed",
        STEP,
        "nothing",
        always,
        _gradients_not_zeroed,
        watches=1,
    ),
    Fault("stale_parameters", STEP, "nothing", always, _stale_parameters, watches=1),
    # Forward pass.
    Fault(
        "dropout_not_divided",
        STEP,
        "--dropout_rates",
        has_dropout,
        _dropout_not_divided,
    ),
    Fault(
        "dropout_mask_reused",
        STEP,
        "--dropout_rates",
        has_dropout,
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
        is_cross_entropy,
        _probabilities_as_logits,
    ),
]

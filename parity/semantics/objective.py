"""Switches on the objective: loss scale, reduction, accumulation, dropout, inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses, train_step
from jaxnn.experiment.files import trace
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    accumulates,
    always,
    has_dropout,
    is_cross_entropy,
    is_fp16,
    is_half,
)
from jaxnn.models import cnn, mlp, rnn, transformer
from parity.inputs import Inputs
from parity.noise import Tensors
from parity.quantities import GRADIENTS, UPDATE
from parity.semantics.switch import StepContext, Switch

SMOOTHING = 0.1


def times(factor, of_loss: bool = True):
    """A `before` hook that multiplies the objective, so that it overflows as such.

    Args:
      factor: (context, rows of the batch) -> factor.
      of_loss: multiply the loss that is reported too.
    """

    def before(inputs: Inputs, context: StepContext) -> Inputs:
        share = np.float32(factor(context, len(inputs.targets)))
        return inputs._replace(
            scale=np.float32(inputs.scale * share),
            loss_share=share if of_loss else np.float32(1),
        )

    return before


def _unscaled_backward(inputs: Inputs, context: StepContext) -> Inputs:
    """Runs the backward pass of the unscaled loss; its gradients are still divided."""
    unscaled = inputs._replace(scale=np.float32(1), divisor=np.float32(1))
    divide = divided_grads(lambda context: context.step["loss_scale"])
    return divide(unscaled, context)


def divided_grads(divisor):
    """A `before` hook: the optimizer sees gradients divided by `divisor(context)`."""

    def before(inputs: Inputs, context: StepContext) -> Inputs:
        share = np.float32(divisor(context))
        master = {
            name: array / share if name.startswith("grads/") else array
            for name, array in inputs.master.items()
        }
        return inputs._replace(master=master)

    return before


def _added_to_previous(tensors: Tensors, context: StepContext) -> Tensors:
    # Nothing comes before the first step.
    if not context.previous:
        return tensors
    return {
        name: array + context.previous[name] if name.startswith("grads/") else array
        for name, array in tensors.items()
    }


def _previous_params(inputs: Inputs, context: StepContext) -> Inputs:
    params = {
        f"params/{name}": array.astype(inputs.compute[f"params/{name}"].dtype)
        for name, array in trace.select(context.previous, "params").items()
    }
    return inputs._replace(compute=inputs.compute | params)


def _first_mask(inputs: Inputs, context: StepContext) -> Inputs:
    del context
    # The masks are drawn from the seed and the step alone.
    return inputs._replace(step=0)


def _only_last_microbatch(plain):
    def accumulate(microbatch_gradients, batch_stats, batch, count):
        last = count - 1

        def muted(batch_stats, microbatch, number):
            *others, grads, batch_stats = microbatch_gradients(
                batch_stats, microbatch, number
            )
            grads = jax.tree.map(lambda g: jnp.where(number == last, g, 0), grads)
            return *others, grads, batch_stats

        return plain(muted, batch_stats, batch, count)

    return accumulate


def _squashed_first(plain):
    def build(name: str, label_smoothing: float = 0.0):
        squash = jax.nn.sigmoid if name == "binary_cross_entropy" else jax.nn.softmax
        loss = plain(name, label_smoothing)
        return lambda outputs, targets: loss(squash(outputs), targets)

    return build


def _without_division(plain):
    def dropout(x, rate, layer, source):
        kept = plain(x, rate, layer, source)
        if source is None or rate == 0:
            return kept
        return kept * np.asarray(1 - rate, x.dtype)

    return dropout


def _keep_for_rate(experiment: Experiment) -> Experiment:
    rates = tuple(1 - rate for rate in experiment.dropout_rates)
    return experiment.replace(dropout_rates=rates)


SWITCHES = [
    Switch(
        "loss_not_scaled",
        (GRADIENTS, UPDATE),
        "the loss is not multiplied by the loss scale, the gradients are divided by it",
        "MISMATCHES D1; DeepSpeed pull request 8393",
        is_fp16,
        before=_unscaled_backward,
    ),
    Switch(
        "unscaled_twice",
        (UPDATE,),
        "the gradients are divided by the loss scale twice",
        "GradScaler.unscale_() called by hand and by step()",
        is_fp16,
        before=divided_grads(lambda s: s.step["loss_scale"]),
    ),
    Switch(
        "growth_step_halved",
        (UPDATE,),
        "where the loss scale doubles, the gradients are divided by the new one",
        "MISMATCHES D3; DeepSpeed runtime/fp16/loss_scaler.py",
        is_fp16,
        before=divided_grads(lambda s: 2 if s.grows else 1),
    ),
    Switch(
        "loss_summed",
        (GRADIENTS,),
        "the loss is the batch's sum, not its mean",
        "torch reduction='sum'",
        always,
        before=times(lambda context, rows: rows),
    ),
    Switch(
        "half_factor",
        (GRADIENTS,),
        "the squared error has a factor 1/2",
        "MISMATCHES L9; optax.l2_loss",
        lambda e: e.loss == "mse",
        before=times(lambda context, rows: 0.5),
    ),
    Switch(
        "padding_counted",
        (GRADIENTS,),
        "a smaller last batch is averaged as if it were full",
        "a mean over padded rows",
        always,
        before=times(lambda context, rows: rows / context.experiment.batch_size),
    ),
    Switch(
        "accumulation_not_averaged",
        (GRADIENTS,),
        "the microbatches' gradients are summed, each a mean of its own",
        "MISMATCHES D8; DeepSpeed divides the loss by gradient_accumulation_steps",
        accumulates,
        before=times(
            lambda context, rows: context.experiment.accumulation_steps,
            of_loss=False,
        ),
    ),
    Switch(
        "last_part_only",
        (GRADIENTS,),
        "only the last microbatch's gradient is applied",
        "zero_grad() between the microbatches of a step",
        accumulates,
        patches=(Patch(train_step, "accumulate", _only_last_microbatch),),
    ),
    Switch(
        "accumulated_in_half",
        (GRADIENTS,),
        "the microbatches' gradients are added in the compute dtype, not in float32",
        "MISMATCHES D23; DeepSpeed's data_types.grad_accum_dtype, unless it is fp32",
        lambda e: accumulates(e) and is_half(e),
        patches=(Patch(train_step, "sum_dtype", lambda plain: lambda dtype: dtype),),
    ),
    Switch(
        "ranks_summed",
        (GRADIENTS,),
        "gradients are summed over the ranks, not averaged",
        "all_reduce without division",
        lambda e: e.num_devices > 1,
        before=times(lambda context, rows: context.world_size, of_loss=False),
    ),
    Switch(
        "gradients_not_zeroed",
        (GRADIENTS,),
        "the previous step's gradients are still there",
        "a missing optimizer.zero_grad()",
        always,
        after=_added_to_previous,
    ),
    Switch(
        "stale_parameters",
        (GRADIENTS,),
        "forward and backward use the parameters of the step before",
        "half-precision copies that are not refreshed from the masters",
        always,
        before=_previous_params,
    ),
    Switch(
        "dropout_off",
        (GRADIENTS,),
        "no unit is dropped",
        "module.eval() in training",
        has_dropout,
        experiment=lambda e: e.replace(dropout_rates=()),
    ),
    Switch(
        "dropout_not_divided",
        (GRADIENTS,),
        "kept units are not divided by the probability of keeping them",
        "Srivastava et al. 2014 scale at test time instead",
        has_dropout,
        patches=tuple(
            Patch(module, "dropout", _without_division)
            for module in (mlp, cnn, rnn, transformer)
        ),
    ),
    Switch(
        "dropout_mask_reused",
        (GRADIENTS,),
        "every step drops the units of the first",
        "a key that is not split or folded",
        has_dropout,
        before=_first_mask,
    ),
    Switch(
        "dropout_rate_is_keep",
        (GRADIENTS,),
        "the rate is taken as the probability of keeping a unit",
        "TensorFlow 1's keep_prob",
        lambda e: any(rate not in (0, 0.5) for rate in e.dropout_rates),
        experiment=_keep_for_rate,
    ),
    Switch(
        "label_smoothing_missing",
        (GRADIENTS,),
        "labels are not smoothed",
        "Szegedy et al. 2016",
        lambda e: e.label_smoothing > 0,
        experiment=lambda e: e.replace(label_smoothing=0.0),
    ),
    Switch(
        "label_smoothing_added",
        (GRADIENTS,),
        f"labels are smoothed by {SMOOTHING}",
        "torch.nn.CrossEntropyLoss(label_smoothing)",
        lambda e: e.loss == "cross_entropy" and not e.label_smoothing,
        experiment=lambda e: e.replace(label_smoothing=SMOOTHING),
    ),
    Switch(
        "probabilities_as_logits",
        (GRADIENTS,),
        "softmax or sigmoid is applied before a loss that applies it again",
        "torch.nn.CrossEntropyLoss takes logits",
        is_cross_entropy,
        patches=(Patch(losses, "build", _squashed_first),),
    ),
    Switch(
        "computed_in_bf16",
        (GRADIENTS,),
        "the forward and backward pass are in bfloat16",
        "autocast, or matmul precision left at its default on an accelerator",
        lambda e: e.precision == "fp32",
        experiment=lambda e: e.replace(precision="bf16"),
    ),
]

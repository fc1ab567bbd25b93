"""Switches on the rules: learning rates, loss scales, counters, batches, state."""

import functools

import jax
import numpy as np

from jaxnn import loss_scaling, train_step
from jaxnn.experiment import freezing
from jaxnn.experiment.data import batches
from jaxnn.experiment.files.trace import Number, flatten, select
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import (
    always,
    has_moments_from_zero,
    has_schedule,
    is_fp16,
    is_half,
    scales_dynamically,
)
from jaxnn.optimizers import OPTIMIZERS
from parity import rules
from parity.inputs import Inputs
from parity.noise import FLOAT32, ulp
from parity.quantities import GRADIENTS, RULES
from parity.rules import Expectation
from parity.semantics.switch import StepContext, Switch

ROUNDING = 4
"""Ulps within which two stacks' decay of a parameter counts as the same."""


def _learning_rate_at(offset: int):
    def expected(rows: list[Expectation], context: StepContext) -> list[Expectation]:
        table = context.learning_rates
        shifted = np.clip(context.updates + offset, 0, len(table) - 1)
        return _with(rows, "learning_rate", table[shifted])

    return expected


def _learning_rate_of_number(
    rows: list[Expectation], context: StepContext
) -> list[Expectation]:
    return _with(rows, "learning_rate", context.learning_rates[context.number])


def _one_update_more(
    rows: list[Expectation], context: StepContext
) -> list[Expectation]:
    if context.number == 0:
        moved = _after_zero_gradients(context.experiment, rows)
        rows = [
            row._replace(expected=_within_rounding(row, moved[row.tensor]))
            if row.tensor in moved
            else row
            for row in rows
        ]
    return _with(rows, "optimizer_step", np.int32(context.updates + 1))


def _after_zero_gradients(
    experiment: Experiment, rows: list[Expectation]
) -> dict[str, np.ndarray]:
    """Returns first parameters and moments after one update with zero gradients."""
    expected = {row.tensor: row.expected for row in rows}
    params = freezing.trained(experiment, select(expected, "params"))
    optimizer = OPTIMIZERS[experiment.optimizer](experiment)
    zeros = {name: np.zeros_like(array) for name, array in params.items()}
    # Jitted, because op by op each operation on each shape would be compiled.
    update = jax.jit(functools.partial(train_step.update, optimizer))
    updated, state = update(
        params,
        optimizer.transform.init(params),
        zeros,
        np.float32(experiment.learning_rate),
    )
    moments = flatten(optimizer.moments(state)._asdict())
    return {
        **{f"params/{name}": np.asarray(array) for name, array in updated.items()},
        **{f"moments/{name}": np.asarray(array) for name, array in moments.items()},
    }


def _within_rounding(row: Expectation, moved: np.ndarray) -> np.ndarray:
    """Returns what was recorded if it is the moved tensor within rounding."""
    if row.recorded.shape != moved.shape or row.quantity != "params":
        return moved
    distance = np.abs(row.recorded.astype(np.float64) - moved)
    allowed = ROUNDING * ulp(moved, FLOAT32)
    return moved if (distance > allowed).any() else row.recorded


def _initial_copies(inputs: Inputs, context: StepContext) -> Inputs:
    """Starts the first forward pass from the parameters as they were given.

    DeepSpeed does not refresh the half-precision copies after its update before
    training.
    """
    if context.number or not context.initial:
        return inputs
    copies = {
        f"params/{name}": array.astype(inputs.compute[f"params/{name}"].dtype)
        for name, array in context.initial.items()
    }
    return inputs._replace(compute=inputs.compute | copies)


def _updates_are_steps(
    rows: list[Expectation], context: StepContext
) -> list[Expectation]:
    return _with(rows, "optimizer_step", np.int32(context.number))


def _as_at_first(rows: list[Expectation], context: StepContext) -> list[Expectation]:
    return [
        row._replace(expected=context.first[row.tensor])
        if row.tensor.startswith("params/")
        else row
        for row in rows
    ]


def _moments_at_zero(
    rows: list[Expectation], context: StepContext
) -> list[Expectation]:
    del context
    return [
        row._replace(expected=np.zeros_like(row.recorded))
        if row.tensor.startswith("moments/")
        else row
        for row in rows
    ]


def _with(
    rows: list[Expectation], quantity: str, expected: Number
) -> list[Expectation]:
    return [
        row._replace(expected=np.asarray(expected)) if row.quantity == quantity else row
        for row in rows
    ]


def _constant(experiment: Experiment) -> Experiment:
    # A schedule's own numbers go with it.
    return experiment.replace(
        schedule="constant",
        warmup_steps=0,
        schedule_steps=0,
        min_learning_rate=0.0,
        final_learning_rate=0.0,
    )


def _other_warmup(experiment: Experiment) -> Experiment:
    other = "linear" if experiment.warmup_type == "log" else "log"
    return experiment.replace(warmup_type=other)


def _growing_early(plain):
    """Doubles the scale on the window's last step, not on the one after."""

    def update_loss_scale(state, overflow, experiment):
        # Clean steps counted from 1 to the plain function, from 0 to everyone else.
        ahead = state._replace(clean_steps=state.clean_steps + 1)
        after = plain(ahead, overflow, experiment)
        return after._replace(clean_steps=after.clean_steps - 1 + overflow)

    return update_loss_scale


SWITCHES = [
    Switch(
        "learning_rate_early",
        (RULES,),
        "the schedule is advanced before the update it belongs to",
        "MISMATCHES D16; torch.optim.lr_scheduler: step() before optimizer.step()",
        has_schedule,
        expected=_learning_rate_at(1),
    ),
    Switch(
        "learning_rate_late",
        (RULES,),
        "the schedule is one update behind: its first rate is used twice",
        "MISMATCHES D16; DeepSpeed runtime/lr_schedules.py WarmupLR",
        has_schedule,
        expected=_learning_rate_at(-1),
    ),
    Switch(
        "schedule_counts_skipped",
        (RULES,),
        "a skipped step advances the schedule",
        "MISMATCHES D9",
        lambda e: is_fp16(e) and has_schedule(e),
        expected=_learning_rate_of_number,
    ),
    Switch(
        "schedule_missing",
        (RULES,),
        "the learning rate stays at its peak",
        "a scheduler that is never stepped",
        has_schedule,
        experiment=_constant,
    ),
    Switch(
        "warmup_curve",
        (RULES,),
        "the warm-up is linear where it is logarithmic, or the reverse",
        "MISMATCHES D9",
        lambda e: e.schedule in ("warmup_lr", "warmup_decay_lr", "warmup_cosine_lr"),
        experiment=_other_warmup,
    ),
    Switch(
        "init_step_counted",
        (RULES, GRADIENTS),
        "an update of zero gradients before training counts as the first",
        "MISMATCHES D2; DeepSpeed runtime/fp16/fused_optimizer.py "
        "initialize_optimizer_states",
        always,
        expected=_one_update_more,
        before=_initial_copies,
    ),
    Switch(
        "skipped_steps_counted",
        (RULES,),
        "a skipped step counts as an update",
        "MISMATCHES D9",
        is_fp16,
        expected=_updates_are_steps,
    ),
    Switch(
        "masters_not_rounded",
        (RULES,),
        "masters start as drawn, not as rounded to the compute format",
        "MISMATCHES D5",
        is_half,
        patches=(
            Patch(
                rules, "rounded_start", lambda plain: lambda experiment, array: array
            ),
        ),
    ),
    Switch(
        "weights_reloaded",
        (RULES,),
        "the parameters are put back to where the run began",
        "a restore or an init that runs again",
        always,
        expected=_as_at_first,
    ),
    Switch(
        "moments_reset",
        (RULES,),
        "the optimizer begins anew, its moments at zero",
        "an optimizer that is built again at an epoch or a restore",
        has_moments_from_zero,
        expected=_moments_at_zero,
    ),
    Switch(
        "adagrad_start",
        (RULES,),
        "AdaGrad's accumulator starts at 0.1",
        "MISMATCHES O2; optax.adagrad",
        lambda e: e.optimizer == "adagrad",
        experiment=lambda e: e.replace(adagrad_initial=0.1),
    ),
    Switch(
        "not_shuffled",
        (RULES,),
        "samples come in the order of the file",
        "torch DataLoader(shuffle=False)",
        always,
        patches=(
            Patch(
                batches,
                "epoch_order",
                lambda plain: lambda n, seed, epoch: np.arange(n, dtype=np.int32),
            ),
        ),
    ),
    Switch(
        "same_order_every_epoch",
        (RULES,),
        "every epoch repeats the first one's order",
        "MISMATCHES D11; torch DistributedSampler without set_epoch",
        always,
        patches=(
            Patch(
                batches,
                "epoch_order",
                lambda plain: lambda n, seed, epoch: plain(n, seed, 0),
            ),
        ),
    ),
    Switch(
        "no_hysteresis",
        (RULES,),
        "the loss scale halves at the first overflow",
        "MISMATCHES D4; flax DynamicScale, DeepSpeed's stage 0",
        lambda e: is_fp16(e) and e.hysteresis > 1,
        experiment=lambda e: e.replace(hysteresis=1),
    ),
    Switch(
        "scale_grows_early",
        (RULES,),
        "the loss scale doubles on the window's last step, not on the one after",
        "MISMATCHES D4; torch.amp.GradScaler, flax DynamicScale",
        is_fp16,
        patches=(Patch(loss_scaling, "update_loss_scale", _growing_early),),
    ),
    Switch(
        "scale_is_static",
        (RULES,),
        "the loss scale never moves",
        "ds_config fp16.loss_scale other than 0",
        scales_dynamically,
        experiment=lambda e: e.replace(static_loss_scale=2.0**e.initial_scale_power),
    ),
]

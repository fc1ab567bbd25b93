"""What a rank of DeepSpeed holds for the model, by ZeRO stage.

Stage 1 divides the optimizer's part among the ranks, stage 2 the gradients as well,
stage 3 the weights too (Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward
training trillion parameter models", section 5 and figure 1). For P parameters in FP16
under Adam they are 12 P, 2 P and 2 P bytes: 16 P at stage 0, 16 P / N at stage 3.

Left out, as there: activations, buffers of the communication, what stage 3 gathers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxnn import precision
from jaxnn.describe import report, step_memory
from jaxnn.describe.abstract_step import AbstractStep

STAGES = range(4)


class ModelStates(NamedTuple):
    """Bytes of what is kept for the parameters; on one rank or in all.

    Attributes:
      weights: those of the passes.
      gradients: those of the backward pass.
      optimizer: its state, and float32 masters where the passes have other weights.
    """

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Sum of the three."""
        return sum(self)


def undivided(step: AbstractStep) -> ModelStates:
    """Returns what one device alone holds."""
    policy = precision.POLICIES[step.experiment.precision]
    has_masters = jnp.dtype(policy.compute) != jnp.dtype(policy.master)
    masters = step_memory.tree_size(step.state.params) if has_masters else 0
    # Counters are a number each, whatever the parameters.
    state = [x for x in jax.tree.leaves(step.state.opt_state) if x.ndim]
    copies = step_memory.tree_size(step.compute_params)
    return ModelStates(copies, copies, masters + step_memory.tree_size(state))


def on_a_rank(whole: ModelStates, stage: int, ranks: int) -> ModelStates:
    """Returns the share of a rank, the last byte rounded up.

    Args:
      whole: as of `undivided`.
      stage: ZeRO stage, 0 to 3.
      ranks: how many there are, at least 1.
    """
    first_divided = ModelStates(weights=3, gradients=2, optimizer=1)
    shares = [
        -(-size // ranks) if stage >= first else size
        for size, first in zip(whole, first_divided)
    ]
    return ModelStates(*shares)


def print_stages(step: AbstractStep, console: Console) -> None:
    """Prints a row for each stage, that of `--zero_stage` marked."""
    ranks, chosen = step.experiment.num_devices, step.experiment.zero_stage
    whole = undivided(step)
    table = report.empty_table(
        f"Weights, gradients and optimizer state on each of {ranks} ranks",
        ("ZeRO stage", "weights", "gradients", "optimizer", "total", "of stage 0"),
        left=1,
    )
    for stage in STAGES:
        held = on_a_rank(whole, stage, ranks)
        mark = " <- --zero_stage" if stage == chosen else ""
        sizes = [report.size(size) for size in (*held, held.total)]
        table.add_row(f"{stage}{mark}", *sizes, f"{held.total / whole.total:.1%}")
    console.print(table)
    console.print(
        "By DeepSpeed's ZeRO: a stage divides the optimizer's part (1), the gradients "
        "as well (2), the weights too (3). jaxnn keeps them whole on every device. "
        "optimizer: its state, and float32 masters beside 16-bit weights.\n"
    )

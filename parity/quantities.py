"""The quantities that a recorded step consists of, in the order in which it makes them.

Everything that differs between two quantities is a field here: which part of the step
computes it, whether it must be equal to the bit, and how reports call it.
"""

from typing import NamedTuple, TypeAlias

RULES = "rules"
"""What the flags alone determine: batches, rates, scales, counters, carried state."""
GRADIENTS = "gradients"
"""The forward and backward pass."""
UPDATE = "update"
"""The optimizer, from the recorded gradients."""
PARTS = (RULES, GRADIENTS, UPDATE)
"""The parts of a step, each judged from recorded inputs so that no fault spreads."""


class Quantity(NamedTuple):
    """One quantity of a step.

    Attributes:
      name: as verdict.json has it.
      part: part of the step that computes it, one of PARTS.
      label: as tables and reports call it.
      kind: first component of its tensors' names in a trace; empty if it has none.
      is_exact: must be equal to the bit; otherwise measured in noise units.
      is_float32: stored in float32 whatever the compute dtype of the run.
      is_ordered: its tensors are computed one after the other, so that the first
        one to fail is the one to name.
      is_learned: absent from a step that an overflow skipped.
    """

    name: str
    part: str
    label: str
    kind: str = ""
    is_exact: bool = False
    is_float32: bool = False
    is_ordered: bool = False
    is_learned: bool = False


QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("params", RULES, "state before", is_exact=True),
        Quantity("weights_read", RULES, "weights read", is_exact=True),
        Quantity("batch", RULES, "sample ids", is_exact=True),
        Quantity("inputs", RULES, "inputs", is_exact=True),
        Quantity("targets", RULES, "targets", is_exact=True),
        Quantity("optimizer_step", RULES, "updates applied", is_exact=True),
        Quantity("learning_rate", RULES, "learning rate", is_exact=True),
        Quantity("loss_scale", RULES, "loss scale", is_exact=True),
        Quantity(
            "activations",
            GRADIENTS,
            "activations",
            kind="activations",
            is_ordered=True,
        ),
        Quantity("loss", GRADIENTS, "loss", kind="loss", is_float32=True),
        Quantity(
            "batch_stats",
            GRADIENTS,
            "running statistics",
            kind="updated_batch_stats",
            is_float32=True,
        ),
        Quantity(
            "grads",
            GRADIENTS,
            "gradients",
            kind="grads",
            is_ordered=True,
            is_learned=True,
        ),
        Quantity("grad_norm", GRADIENTS, "gradient norm", is_float32=True),
        Quantity("skipped", GRADIENTS, "overflow decision", is_exact=True),
        Quantity(
            "moments",
            UPDATE,
            "moments",
            kind="updated_moments",
            is_float32=True,
            is_learned=True,
        ),
        Quantity(
            "updated",
            UPDATE,
            "updated parameters",
            kind="updated",
            is_float32=True,
            is_learned=True,
        ),
        Quantity("unchanged", UPDATE, "skipped unchanged", is_exact=True),
    )
}
"""Name -> quantity, in the order of a step."""

ORDER: dict[str, int] = {name: place for place, name in enumerate(QUANTITIES)}
"""Name -> place within a step."""

OF_KIND: dict[str, Quantity] = {
    quantity.kind: quantity for quantity in QUANTITIES.values() if quantity.kind
}
"""Kind of a tensor in a trace -> the quantity that it is compared as."""

Key: TypeAlias = tuple[str, str]
"""Name of a quantity, and of one of its tensors; empty for a scalar."""


def key_of(name: str) -> Key:
    """Returns the key of a tensor's name in a trace."""
    kind, _, tensor = name.partition("/")
    return OF_KIND[kind].name, tensor

"""Context of one forward pass: parameters, running statistics, dropout masks."""

import dataclasses
import zlib

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle.dropout import Masks
from parity.oracle.initializers import Draw
from parity.oracle.tensor import Tensor, lift


@dataclasses.dataclass
class Scope:
    """What layers read and write during one forward pass.

    Names and layouts are jaxnn's: "hidden_0/kernel" is [in, out].

    Attributes:
      params: parameters by name.
      batch_stats: running statistics by name, float64.
      masks: source of dropout masks, or None outside training.
      seed: seed for creating missing parameters, or None to raise on a missing one.
      used: names that layers have asked for, "params/NAME" and "batch_stats/NAME".
      activations: outputs by layer, [rows, ...], in the order the layers finish.
      updated_stats: running statistics after the pass, written by layers that have any.
    """

    params: dict[str, Tensor]
    batch_stats: dict[str, np.ndarray]
    masks: Masks | None = None
    seed: int | None = None
    used: set[str] = dataclasses.field(default_factory=set)
    activations: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    updated_stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def param(self, name: str, shape: tuple[int, ...], draw: Draw) -> Tensor:
        """Returns a parameter, drawing it first if it is missing and a seed is set.

        Raises:
          UserError: it is missing, or has another shape.
        """
        if name not in self.params and self.seed is not None:
            # Seeded by name, so that a parameter's value does not depend on which
            # layers come before it. crc32, as `hash` differs between processes.
            rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            self.params[name] = lift(draw(rng, shape))

        found = self.params[name].shape if name in self.params else "missing"
        if found != shape:
            raise UserError(
                f"params/{name}: is {found}, the network's is {shape}; use parameters "
                "that fit the model flags"
            )
        self.used.add(f"params/{name}")
        return self.params[name]

    def statistic(
        self, name: str, shape: tuple[int, ...], initial: float
    ) -> np.ndarray:
        """Returns a running statistic, created as `initial` if missing and seed is set.

        Raises:
          UserError: it is missing, or has another shape.
        """
        if name not in self.batch_stats and self.seed is not None:
            self.batch_stats[name] = np.full(shape, initial)

        found = self.batch_stats[name].shape if name in self.batch_stats else "missing"
        if found != shape:
            raise UserError(
                f"batch_stats/{name}: is {found}, the network's is {shape}; use "
                "statistics that fit the model flags"
            )
        self.used.add(f"batch_stats/{name}")
        return self.batch_stats[name]

    def keep(self, layer: str, output: Tensor) -> Tensor:
        """Stores the output of a layer in `activations` and returns it."""
        self.activations[layer] = output.value
        return output

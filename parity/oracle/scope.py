"""What a network's layers take and leave on a forward pass: parameters, running
statistics, dropout masks."""

import dataclasses
import zlib

import numpy as np

from jaxnn.experiment.errors import UserError
from parity.oracle.dropout import Masks
from parity.oracle.initializers import Draw
from parity.oracle.tensor import Tensor, lift


@dataclasses.dataclass
class Scope:
    """One forward pass. Names and layouts are jaxnn's: "hidden_0/kernel" is [in, out].

    Attributes:
      params: by name.
      batch_stats: running statistics by name, float64.
      masks: None outside training.
      seed: of parameters that are not there yet, which are then drawn; None: a missing
        one is an error.
      used: what layers have asked for, "params/NAME" and "batch_stats/NAME".
      activations: the output of each layer, [rows, ...] by its name, in the order in
        which they end.
      updated_stats: the running statistics after the pass, filled by the layers that
        have them.
    """

    params: dict[str, Tensor]
    batch_stats: dict[str, np.ndarray]
    masks: Masks | None = None
    seed: int | None = None
    used: set[str] = dataclasses.field(default_factory=set)
    activations: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    updated_stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def param(self, name: str, shape: tuple[int, ...], draw: Draw) -> Tensor:
        """A parameter of a layer; `draw` makes it where the pass makes parameters.

        Raises:
          UserError: it is missing, or of another shape.
        """
        if name not in self.params and self.seed is not None:
            self.params[name] = lift(
                draw(
                    np.random.default_rng([self.seed, zlib.crc32(name.encode())]), shape
                )
            )
        found = self.params[name].shape if name in self.params else "missing"
        if found != shape:
            raise UserError(
                f"params/{name}: is {found}, the network's is {shape}; give it the "
                "parameters of its flags"
            )
        self.used.add(f"params/{name}")
        return self.params[name]

    def statistic(
        self, name: str, shape: tuple[int, ...], initial: float
    ) -> np.ndarray:
        """A running statistic of a layer, which begins as `initial` where the pass
        makes parameters.

        Raises:
          UserError: it is missing, or of another shape.
        """
        if name not in self.batch_stats and self.seed is not None:
            self.batch_stats[name] = np.full(shape, initial)
        found = self.batch_stats[name].shape if name in self.batch_stats else "missing"
        if found != shape:
            raise UserError(
                f"batch_stats/{name}: is {found}, the network's is {shape}; give it "
                "the statistics of its flags"
            )
        self.used.add(f"batch_stats/{name}")
        return self.batch_stats[name]

    def keep(self, layer: str, output: Tensor) -> Tensor:
        """Notes a layer's output and returns it."""
        self.activations[layer] = output.value
        return output

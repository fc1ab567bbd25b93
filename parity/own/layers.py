"""Which module of a port is which module of torch, by the parameters that they hold.

A pair holds the same entries and nothing else. Only such pairs are compared: the output
of a module that merely contains others may be taken at another place in a port.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from parity.own.networks.network import Network
from parity.own.state_dict import Converted

CHANNELS_LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}
"""Number of axes -> order in which flax has the axes of torch's feature maps."""


class Pairs(NamedTuple):
    """Modules of both sides that hold the same parameters.

    Attributes:
      torch_of: path in the port -> path in torch.
      has_images: a convolution's kernel was transposed, so feature maps are, too.
    """

    torch_of: dict[str, str]
    has_images: bool

    def in_port_layout(
        self, recorded: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        """Returns a recorded output as the port has it; None if no layout fits.

        Args:
          recorded: output of torch's module.
          shape: shape of the port's output.
        """
        axes = CHANNELS_LAST.get(recorded.ndim)
        if self.has_images and axes and recorded.transpose(axes).shape == shape:
            return recorded.transpose(axes)
        if recorded.shape == shape:
            return recorded
        # [batch * steps, features] beside [batch, steps, features].
        if recorded.size == np.prod(shape) and recorded.shape[-1:] == shape[-1:]:
            return recorded.reshape(shape)
        return None


def pair(network: Network, converted: Converted, trained: Iterable[str]) -> Pairs:
    """Returns the pairs of modules.

    Args:
      network: the port's network.
      converted: where its leaves come from.
      trained: leaves that are parameters, not running statistics.
    """
    weights = converted.weights
    feeding: dict[str, set[str]] = {}
    for leaf in trained:
        module = network.module_of(leaf)
        owners = {name.rpartition(".")[0] for name in weights.origins[leaf]}
        feeding.setdefault(module, set()).update(owners)
    fed = _inverse(feeding)
    torch_of = {
        module: next(iter(owners))
        for module, owners in feeding.items()
        if len(owners) == 1 and len(fed[next(iter(owners))]) == 1 and module
    }
    return Pairs(torch_of, _transposes_kernels(converted))


def _inverse(feeding: Mapping[str, set[str]]) -> dict[str, set[str]]:
    fed: dict[str, set[str]] = {}
    for module, owners in feeding.items():
        for owner in owners:
            fed.setdefault(owner, set()).add(module)
    return fed


def _transposes_kernels(converted: Converted) -> bool:
    weights = converted.weights
    return any(
        part.source.ndim >= 4 and len(needs) == 1
        for part, needs in zip(weights.targets.values(), weights.origins.values())
    )

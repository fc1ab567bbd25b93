"""A port laid beside a recording: which leaf, which module and which pass is which."""

import functools
from collections.abc import Callable
from typing import Any

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.files.trace import Reader
from parity.noise import Tensors
from parity.own import tree
from parity.own.agreement import require_agreement
from parity.own.layers import Pairs, pair
from parity.own.networks.wrap import wrap
from parity.own.optax_feed import OptaxFeed
from parity.own.passes import Objective
from parity.own.recording import Ported
from parity.own.replay import COMPUTE, PortReplay
from parity.own.state_dict import Converted, convert_with


class Port:
    """A port laid beside a recording: all that a judgement of its steps rests on.

    Args:
      trace: recording in torch's names.
      model: flax.linen or flax.nnx module, or apply(params, *inputs).
      loss: loss(outputs, *inputs); None if the model returns it.
      optimizer: optax transformation; None if updates are not to be judged.
      convert: torch's state_dict -> the model's parameter tree.

    Attributes:
      trace: as given.
      ported: the recording by the port's names.
      objective: loss and gradients of the port.
      optimizer: as given.
      feed_of: (optimizer, structure, leaves) -> what feeds it.
      converted: where each leaf of the port comes from.
      pairs: modules of both sides.
      network: the model behind one call.
      modules: modules of the port whose outputs are compared, in the order they end.
      shapes: index of a step -> {module: shape of its output} of each pass.
      activations: index of a step -> {module: its recorded outputs}; a branch may be
        left out.

    Raises:
      UserError: an argument does not fit the recording.
    """

    def __init__(
        self,
        trace: Reader,
        model: Any,
        loss: Callable | None,
        optimizer: Any,
        convert: Callable[[Any], Any],
    ):
        require_readable(trace)
        self.trace = trace
        ties = trace.meta.get("ties", {})
        self.converted: Converted = convert_with(convert, trace.read(0), ties)
        self.ported = Ported(trace, self.converted)
        self.network = network = wrap(model, self.converted.structure)
        require_agreement(model, self.converted, trace.read(0))
        self.objective = Objective(network, loss, self.ported.trained)
        self.optimizer = optimizer
        self.feed_of: Callable[..., OptaxFeed] = OptaxFeed
        self.pairs: Pairs = pair(network, self.converted, self.ported.parameters)
        self.shapes = functools.cache(self._shapes)
        # A step's are asked for by its replay and by what that is compared with.
        self.activations = functools.lru_cache(maxsize=1)(self._activations)
        # In the order in which the port's modules end.
        paths = self.shapes(0)[0]
        self.modules = [name for name in paths if name in self.pairs.torch_of]

    def _activations(self, number: int) -> Tensors:
        found = self.ported.activations(number, self.shapes(number), self.pairs)
        return {name: found[name] for name in self.modules if name in found}

    def _shapes(self, number: int) -> list[dict[str, tuple[int, ...]]]:
        replay = PortReplay(self.ported, number, self.objective, None)
        return replay.shapes(replay.inputs(number))

    def feed(self) -> OptaxFeed | None:
        """Returns the optimizer before the first step."""
        if self.optimizer is None:
            return None
        structure = tree.only(self.converted.structure, self.ported.parameters)
        return self.feed_of(self.optimizer, structure, self.ported.leaves(0))

    @property
    def has_activations(self) -> bool:
        """True if outputs of torch's modules were recorded."""
        return any("/activations/" in name for name in self.ported.raw(0))

    @property
    def order(self) -> list[str]:
        """Names of modules and gradients in the order in which a step computes them."""
        weights = self.converted.weights
        places = {name: place for place, name in enumerate(weights.sources)}

        def last_place(leaf: str) -> int:
            return max(places[name] for name in weights.origins[leaf])

        backward = sorted(self.ported.trained, key=last_place, reverse=True)
        return [*self.modules, *backward]


def require_readable(trace: Reader) -> None:
    """Raises UserError unless a port can be laid beside a recording."""
    if trace.meta.get("names", "flax") != "torch":
        raise UserError(
            "cannot judge: the trace has flax's names; own.judge takes what own.record "
            "wrote, own.judge_step takes this"
        )
    if trace.meta["precision"] not in COMPUTE:
        raise UserError(
            f"cannot judge: meta.json: precision {trace.meta['precision']!r} is none "
            f"of {', '.join(COMPUTE)}"
        )
    if not len(trace):
        raise UserError(
            "cannot judge: the trace has no whole step; call own.record around the "
            "training loop"
        )
    if trace.meta.get("unreachable_dropout"):
        where = ", ".join(trace.meta["unreachable_dropout"])
        raise UserError(
            f"cannot judge: torch drew dropout masks inside {where}, where they cannot "
            'be read; set its dropout to 0, or attn_implementation="eager"'
        )

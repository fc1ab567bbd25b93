"""A model under a torch optimizer: alone, under DDP or under Accelerate."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from jaxnn.experiment.errors import UserError
from torch_ref.watch import moments
from torch_ref.watch.structure import Structure
from torch_ref.watch.subject import Tensors


class Plain:
    """A subject whose parameters are the masters.

    Args:
      model: the network, or what DDP or Accelerate made of it.
      optimizer: torch's, or what Accelerate made of it.
      scheduler: of the learning rate, if there is one; its class is noted.
      first_step: updates before the first recorded one, for optimizers that do not
        count.

    Raises:
      UserError: the model is cut into pieces, which this cannot read.
    """

    stack = "torch"

    def __init__(
        self, model: nn.Module, optimizer: Any, scheduler: Any, first_step: int
    ):
        self.model = unwrap(model)
        self.structure = Structure(self.model)
        self.optimizer = torch_optimizer(optimizer)
        self.counted = first_step
        self._scheduler = scheduler
        self.rank, self.world_size = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.rank = torch.distributed.get_rank()
            self.world_size = torch.distributed.get_world_size()

    def masters(self) -> Tensors:
        """As in Subject."""
        return dict(self.structure.params())

    def forward_weights(self) -> Tensors:
        """None: a forward pass reads the masters."""
        return {}

    def moment(self, key: str) -> Tensors:
        """As in Subject; what has no state yet is what it starts from."""
        first = moments.start(self.optimizer, key)
        params, found = self.structure.params(), {}
        for name, state in self._states().items():
            value = state.get(key)
            if isinstance(value, torch.Tensor):
                found[name] = value
            elif not state:
                found[name] = torch.full_like(params[name].detach(), first)
        return found

    def gradients(self) -> Tensors:
        """Returns the gradients as they lie in the parameters."""
        params = self.structure.params()
        grads = {n: p.grad for n, p in params.items() if p.grad is not None}
        return {n: g.to_dense() if g.is_sparse else g for n, g in grads.items()}

    def has_gradients(self) -> bool:
        """True if a parameter has a gradient that is not zero."""
        grads = [param.grad for param in self.structure.params().values()]
        return any(grad is not None and bool(grad.any()) for grad in grads)

    def updates(self) -> int:
        """As in Subject, by the largest of the optimizer's counters."""
        return max(self.counters().values(), default=self.counted)

    def counters(self) -> dict[str, int]:
        """As in Subject."""
        states = self._states()
        counted = {n: int(s["step"]) for n, s in states.items() if "step" in s}
        # Where others are counted, one without a state has had no update.
        return dict.fromkeys(states, 0) | counted if counted else {}

    def group_params(self) -> Sequence[Sequence[torch.Tensor]]:
        """As in Subject."""
        return [group["params"] for group in self.optimizer.param_groups]

    def meta(self) -> dict[str, Any]:
        """As in Subject."""
        scheduler = type(self._scheduler).__name__ if self._scheduler else None
        return {"zero_stage": None, "config": None, "scheduler": scheduler}

    def _states(self) -> dict[str, Any]:
        """Returns the optimizer's state of each parameter that it trains, if any."""
        held = {id(param) for group in self.group_params() for param in group}
        state = self.optimizer.state
        return {
            name: state.get(param, {})
            for name, param in self.structure.trained().items()
            if id(param) in held
        }


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the network inside DDP.

    Raises:
      UserError: it is cut into pieces by FSDP.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    cut = any(type(param).__name__ == "DTensor" for param in model.parameters())
    if cut or "FullyShardedDataParallel" in type(model).__name__:
        raise UserError(
            "own.record: FSDP's parameters cannot be read; train under DDP or "
            "DeepSpeed to record"
        )
    return model


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Returns the optimizer inside Accelerate's.

    Raises:
      UserError: there is none.
    """
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return torch_optimizer(inner)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(
            "own.record: optimizer is not a torch optimizer; give the one that trains "
            "the model, optimizer=..."
        )
    return optimizer

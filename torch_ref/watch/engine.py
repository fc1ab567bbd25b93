"""DeepSpeed's engine as a subject."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from torch_ref import engine_readers
from torch_ref.watch import moments
from torch_ref.watch.structure import Structure
from torch_ref.watch.subject import Tensors


class Engine:
    """The engine of `deepspeed.initialize`. Every rank takes part in every reading."""

    stack = "deepspeed"

    def __init__(self, engine: Any):
        self.engine = engine
        self.model = engine.module
        self.structure = Structure(self.model)
        self.optimizer = engine_readers.inner_optimizer(engine)
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()

    def masters(self) -> Tensors:
        """As in Subject."""
        return engine_readers.masters(self.engine, dict)

    def forward_weights(self) -> Tensors:
        """As in Subject."""
        if not (self.engine.fp16_enabled() or self.engine.bfloat16_enabled()):
            return {}
        return engine_readers.weights(self.engine)

    def moment(self, key: str) -> Tensors:
        """As in Subject."""
        start = moments.start(self.optimizer, key)
        return engine_readers.moments(self.engine, key, start, dict)

    def gradients(self) -> Tensors:
        """Returns the unscaled gradients, at the end of a step's last backward pass."""
        return engine_readers.gradients(self.engine)

    def updates(self) -> int:
        """As in Subject."""
        return engine_readers.updates(self.engine)

    def counters(self) -> dict[str, int]:
        """As in Subject; only FP32 without ZeRO leaves the parameters to themselves."""
        if type(self.engine.optimizer) is not type(self.optimizer):
            return {}
        params = dict(self.model.named_parameters())
        states = {
            name: engine_readers.state_of(self.engine, param)
            for name, param in params.items()
            if param.requires_grad
        }
        counted = {n: int(s["step"]) for n, s in states.items() if "step" in s}
        return dict.fromkeys(states, 0) | counted if counted else {}

    def group_params(self) -> Sequence[Sequence[torch.Tensor]]:
        """As in Subject."""
        return engine_readers.group_params(self.engine)

    def meta(self) -> dict[str, Any]:
        """As in Subject."""
        config = getattr(self.engine._config, "_param_dict", {})
        found = {
            "zero_stage": int(self.engine.zero_optimization_stage()),
            # Values that are no JSON, as dtypes and Accelerate's infinite
            # `steps_per_print`, by their names.
            "config": json.loads(json.dumps(config, default=str), parse_constant=str),
        }
        # A parameter may be of another format than the engine's.
        if self.engine.fp16_enabled():
            found["precision"] = "fp16"
        if self.engine.bfloat16_enabled():
            found["precision"] = "bf16"
        return found

    def is_last(self) -> bool:
        """True at the microbatch that ends the step."""
        return bool(self.engine.is_gradient_accumulation_boundary())

    def skipped(self, updates: int) -> bool:
        """True if the step that has just ended was skipped.

        Args:
          updates: the updates before it.
        """
        if engine_readers.autocast_scaler(self.engine) is None:
            return bool(getattr(self.engine.optimizer, "overflow", False))
        # torch's scaler tells no one; the optimizer's counter stood still.
        return self.updates() == updates

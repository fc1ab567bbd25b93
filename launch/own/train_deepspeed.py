"""A training script of one's own under DeepSpeed, with a few lines added that write a
trace.

    python launch/own/train_deepspeed.py TRACE_FOLDER
    python launch/own/judge.py TRACE_FOLDER

The module has what a port goes wrong on: weights that are tied, a branch that every
other step leaves out, and two parameter groups. Only the lines between the marks are
there for the trace. FP16 where DeepSpeed has it, else FP32.
"""

import os
import pathlib
import sys

import deepspeed
import numpy as np
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_grad,
    safe_get_full_optimizer_state,
)
from torch import nn

from jaxnn.experiment.files.trace import Writer, grad_norm

STEPS, BATCH, FEATURES, HIDDEN = 12, 16, 12, 8
FP16 = bool(get_accelerator().is_fp16_supported())
DS_CONFIG = {
    "train_batch_size": BATCH,
    "fp16": {"enabled": FP16, "initial_scale_power": 12},
    "zero_optimization": {"stage": 1},
    "gradient_clipping": 0.0,
    "zero_allow_untested_optimizer": True,
}


class Autoencoder(nn.Module):
    """x -> tanh(W x) -> W^T h + c, with a refinement of h in between in some steps."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(FEATURES, HIDDEN, bias=False)
        self.refine = nn.Linear(HIDDEN, HIDDEN)
        self.shift = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x: torch.Tensor, refined: bool) -> torch.Tensor:
        """[batch, FEATURES] -> the same."""
        h = torch.tanh(self.encoder(x))
        h = h + torch.tanh(self.refine(h)) if refined else h
        return nn.functional.linear(h, self.encoder.weight.T) + self.shift


def main(folder: pathlib.Path) -> None:
    """Trains, and records every step."""
    for name, value in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "29555"),
    ):
        os.environ.setdefault(name, value)
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [model.encoder.weight, model.refine.weight],
                "weight_decay": 0.1,
            },
            {"params": [model.refine.bias, model.shift], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=DS_CONFIG
    )
    data = torch.from_numpy(samples())
    # --- added for the trace ---
    params = dict(engine.module.named_parameters())
    precision = "fp16" if FP16 else "fp32"
    writer = Writer(
        folder,
        "full",
        dict(stack="mine", precision=precision, world_size=1, flags=[], versions={}),
    )
    # ---------------------------
    for step in range(STEPS):
        ids = batch_ids(step)
        x = data[ids].half() if FP16 else data[ids]
        loss = torch.mean((engine(x, refined=step % 2 == 0).float() - x.float()) ** 2)
        # --- added for the trace ---
        scale = np.float32(engine.optimizer.loss_scale if FP16 else 1)
        record = {
            "batch/ids": ids,
            "params": masters(params),
            "moments": moments(engine, params),
            "loss": loss.detach().numpy(),
            "loss_scale": scale,
            "learning_rate": np.float32(0.01),
            "optimizer_step": np.int32(engine.global_steps),
        }
        # ---------------------------
        engine.backward(loss)
        # --- added for the trace ---
        grads = {
            name: full(safe_get_full_grad(param), param) / scale
            for name, param in params.items()
        }
        # ---------------------------
        engine.step()
        # --- added for the trace ---
        skipped = np.bool_(engine.optimizer.overflow)
        writer.write(
            step,
            record
            | {
                "grads": grads,
                "grad_norm": grad_norm(grads.values(), skipped),
                "skipped": skipped,
                "updated": masters(params),
                "updated_moments": moments(engine, params),
            },
        )
        # ---------------------------
    print(f"{STEPS} steps, last loss {loss.item():.4f}; trace: {folder}")


# --- added for the trace ---
def masters(params):
    """The FP32 parameters that the optimizer holds."""
    return {
        name: full(safe_get_full_fp32_param(param), param)
        for name, param in params.items()
    }


def moments(engine, params):
    """Adam's moments, zeros before the first update."""
    updates = engine.global_steps
    # DeepSpeed 0.19.8 looks for them once, after the first group's first step: let it
    # look again
    if updates:
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    return {
        kind: {
            name: full(
                safe_get_full_optimizer_state(param, key) if updates else None, param
            )
            for name, param in params.items()
        }
        for kind, key in (("first", "exp_avg"), ("second", "exp_avg_sq"))
    }


def full(tensor, like):
    """A float32 copy; zeros for what a step had no use for."""
    return (
        torch.zeros(like.shape).numpy()
        if tensor is None
        else tensor.detach().float().clone().numpy()
    )


# ---------------------------


def samples() -> np.ndarray:
    """[64, FEATURES] float32."""
    return np.random.default_rng(0).standard_normal((64, FEATURES)).astype(np.float32)


def batch_ids(step: int) -> np.ndarray:
    """[BATCH] int32."""
    return (np.arange(BATCH, dtype=np.int32) + step * BATCH) % 64


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

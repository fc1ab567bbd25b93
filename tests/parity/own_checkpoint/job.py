"""Somebody's DeepSpeed program: trains, saves, is converted there and back, goes on.

python -m tests.parity.own_checkpoint.job FOLDER CASE,CASE, in one process a rank.
"""

import contextlib
import io
import os
import pathlib
import shutil
import sys
from typing import Any, NamedTuple

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import nn

from parity import own
from torch_ref import engine_readers, engine_state

STEPS = 4
"""Before the checkpoint; then there is one more."""
PORT = pathlib.Path(__file__).with_name("port.py")


class Case(NamedTuple):
    """A program, and the optimizer of its port."""

    stage: int
    precision: str
    optax: str
    torch: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    ranks: int = 1

    @property
    def keys(self) -> list[str | None]:
        """What is kept of each parameter; None: its master."""
        return [None, *KEYS[self.torch]]


KEYS = {
    "": ("exp_avg", "exp_avg_sq"),
    "SGD": ("momentum_buffer",),
    "RMSprop": ("square_avg", "momentum_buffer"),
}
ADAM = (
    "optax.chain(optax.clip_by_global_norm(1e9), optax.adamw("
    "optax.constant_schedule(0.01), weight_decay=0.1, mask=is_matrix))"
)
MASKED = (
    "optax.MultiSteps(optax.apply_if_finite(optax.masked(optax.inject_hyperparams("
    "optax.adam)(learning_rate=0.5), is_trained), 3), 2)"
)
RMSPROP = "optax.chain(optax.scale_by_rms(), optax.trace(0.9), optax.scale(-0.01))"
CASES = {
    "plain": Case(0, "fp32", ADAM),
    "fused": Case(0, "fp16", ADAM),
    "unfused": Case(0, "fp16", "optax.sgd(0.1, 0.9)", "SGD", (("momentum", 0.9),)),
    "stage1": Case(1, "fp16", MASKED),
    "two1": Case(1, "fp16", ADAM, ranks=2),
    "two2": Case(2, "bf16", RMSPROP, "RMSprop", (("momentum", 0.9),), ranks=2),
    "two3": Case(3, "bf16", ADAM, ranks=2),
}


class Net(nn.Module):
    """Sizes that two ranks cannot divide, a tied, a frozen weight, buffers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.fixed = nn.Linear(5, 5)
        self.last = nn.Linear(5, 3, bias=False)
        self.tied = nn.Linear(3, 5, bias=False)
        self.tied.weight = self.first.weight
        self.fixed.weight.requires_grad_(False)
        self.register_buffer("offset", torch.full((3,), 0.5))
        self.register_buffer("calls", torch.tensor(7))

    def forward(self, x):
        h = self.norm(self.first(x) + self.tied(x))
        return self.last(torch.tanh(self.fixed(h))) + self.offset


def engine_of(case: Case) -> Any:
    """A fresh engine; two groups of parameters."""
    torch.manual_seed(0)
    model = Net()
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim != 2], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": case.stage},
        "zero_allow_untested_optimizer": True,
        case.precision: {"enabled": True},
    }
    if case.precision == "fp16":
        # The first steps overflow.
        config["fp16"] |= {"initial_scale_power": 20, "hysteresis": 1}
    given: Any = {"model_parameters": groups}
    if case.torch:
        make = getattr(torch.optim, case.torch)
        given = {"optimizer": make(groups, lr=0.01, **dict(case.options))}
    else:
        config["optimizer"] = {"type": "AdamW", "params": {"lr": 0.01}}
    return deepspeed.initialize(model=model, config=config, **given)[0]


def train(engine: Any, steps: range) -> dict[str, torch.Tensor]:
    """Trains; returns the last gradients, where no ZeRO takes them away."""
    grads: dict[str, torch.Tensor] = {}
    for step in steps:
        seed = torch.Generator().manual_seed(10 * step + engine.global_rank)
        dtype = next(engine.module.parameters()).dtype
        x = torch.randn(4, 3, generator=seed).to(dtype)
        engine.backward((engine(x).float() ** 2).mean())
        for name, param in engine.module.named_parameters():
            if param.grad is not None:
                grads[name] = param.grad.clone()
        engine.step()
    return grads


def run(folder: pathlib.Path, case: Case) -> None:
    """Trains over the checkpoint without a break, and again from the converted one."""
    engine = engine_of(case)
    train(engine, range(STEPS))
    engine.save_checkpoint(str(folder / "ckpt"))
    known = truth(engine, case)
    grads = train(engine, range(STEPS, STEPS + 1))
    engine.save_checkpoint(str(folder / "whole"), "end")
    deepspeed.comm.barrier()
    if engine.global_rank == 0:
        torch.save(known, folder / "truth.pt")
        torch.save(grads, folder / "gradients.pt")
        there_and_back(folder, case)
    deepspeed.comm.barrier()
    again = engine_of(case)
    again.load_checkpoint(str(folder / "back"))
    # What DeepSpeed's FusedAdam has multiplied up is in none of its checkpoints.
    engine_state._recount(again)
    train(again, range(STEPS, STEPS + 1))
    again.save_checkpoint(str(folder / "resumed"), "end")


def truth(engine: Any, case: Case) -> dict[str, torch.Tensor]:
    """Masters and moments as DeepSpeed's own readers say."""
    params = dict(engine.module.named_parameters())
    trained = {name: p for name, p in params.items() if p.requires_grad}
    if not case.stage:
        read = [(k, engine_readers.stage_0_tensors(engine, k)) for k in case.keys]
        found = {k: {n: held[p] for n, p in trained.items()} for k, held in read}
    else:
        if case.stage < 3:
            engine_readers.link_states(engine)
        found = {
            key: {
                name: safe_get_full_optimizer_state(param, key)
                if key
                else safe_get_full_fp32_param(param)
                for name, param in trained.items()
            }
            for key in case.keys
        }
    return {
        f"moments/{key}/{name}" if key else f"params/{name}": tensor.detach().clone()
        for key, tensors in found.items()
        for name, tensor in tensors.items()
    }


def there_and_back(folder: pathlib.Path, case: Case) -> None:
    """CKPT -> tree -> a checkpoint, whose template has other values."""
    # What JAX and flax bring is imported by one rank alone.
    from tests.parity.own_checkpoint.converting import convert

    shutil.copy(PORT, folder / "port.py")
    with (folder / "port.py").open("a") as file:
        file.write(f"\n\noptimizer = {case.optax}\n")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        convert(folder / "ckpt", folder / "port.py", folder / "tree")
        source = folder / "tree" / ("orbax" if case.stage else "")
        # Every value differs.
        convert(source, folder / "port.py", folder / "back", folder / "whole")
    (folder / "said").write_text(said.getvalue())


def main(folder: pathlib.Path, names: list[str]) -> None:
    # DeepSpeed asks once; torch computes FP16 in software where it must.
    get_accelerator().is_fp16_supported = lambda: True
    own.prepare_deepspeed()
    deepspeed.init_distributed("gloo", verbose=False)
    for name in names:
        run(folder / name, CASES[name])


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        main(pathlib.Path(sys.argv[1]), sys.argv[2].split(","))

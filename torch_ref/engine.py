"""DeepSpeed: ranks, initialization, and readers of what it holds inside.

The readers return what the mathematics means, not what DeepSpeed stores: gradients are
unscaled (MISMATCHES D15), moments are zeros before the first update.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import socket
import sys
import time
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from jaxnn.experiment.config import Experiment, UserError
from jaxnn.experiment.datasets import cache_folder
from jaxnn.experiment.deepspeed import ds_config

STALE_LOCK_SECONDS = 180
COMPILED_OPS = ("fused_adam", "deepspeed_shm_comm")


def join_ranks() -> tuple[int, int, torch.device]:
    """Joins the launcher's process group, or makes one of a single rank.

    Returns:
      This rank, the number of ranks, and the device to train on.
    """
    if "RANK" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(_free_port())}
    _prepare_compilation()
    with _quiet():
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        deepspeed.init_distributed(dist_backend=get_accelerator().communication_backend_name())
        device = torch.device(get_accelerator().current_device_name())
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device


def fp16_kernels(experiment: Experiment) -> str:
    """Which kernels compute FP16 here: "native" or "software".

    DeepSpeed refuses FP16 on a CPU without AVX512-FP16 or AMX-FP16, although torch computes the
    same format there in software. Under `--fp16_kernels=any` its question is answered with yes.

    Raises:
      UserError: no FP16 instructions, and `--fp16_kernels=native`.
    """
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().is_fp16_supported():
        return "native"
    if experiment.fp16_kernels == "native":
        raise UserError("--precision: this CPU has no FP16 instructions (AVX512-FP16 or AMX-FP16); use "
                        "--precision=fp32, or --fp16_kernels=any to compute FP16 in software")
    get_accelerator().is_fp16_supported = lambda: True
    return "software"


def initialize(experiment: Experiment, model: nn.Module, optimizer: torch.optim.Optimizer, world_size: int):
    """The DeepSpeed engine around a model and an optimizer over its parameters."""
    import deepspeed

    with _quiet():
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_config(experiment, world_size))
    return engine


def masters(engine) -> dict[str, torch.Tensor]:
    """torch name -> master parameter, float32 and whole on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param

    return {name: safe_get_full_fp32_param(param).clone() for name, param in engine.module.named_parameters()}


def gradients(engine) -> dict[str, torch.Tensor]:
    """torch name -> gradient of the mean loss, float32, unscaled; between `backward` and `step`."""
    from deepspeed.utils import safe_get_full_grad

    scale = engine.optimizer.loss_scale
    return {name: safe_get_full_grad(param).float() / scale for name, param in engine.module.named_parameters()}


def moments(engine, key: str) -> dict[str, torch.Tensor]:
    """torch name -> one moment of the optimizer; zeros before the first update."""
    from deepspeed.utils import safe_get_full_optimizer_state

    _link_states(engine)
    started = any(key in state for state in engine.optimizer.optimizer.state.values())
    return {name: safe_get_full_optimizer_state(param, key).clone() if started else torch.zeros_like(param).float()
            for name, param in engine.module.named_parameters()}


def _link_states(engine) -> None:
    """Lets DeepSpeed find every group's optimizer state: 0.19.8 looks once, after the first group's first step."""
    if any(engine.optimizer.optimizer.state.values()):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def set_learning_rate(engine, learning_rate: float) -> None:
    """Sets the learning rate of the coming step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def step(engine, number: int) -> None:
    """Updates the parameters, or skips on an overflow and lowers the loss scale.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale, where DeepSpeed gives up.
    """
    try:
        engine.step()
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise UserError(f"step {number}: a gradient overflows at the smallest loss scale "
                        f"({float(engine.optimizer.loss_scale):g}); try a smaller --learning_rate or "
                        "--precision=fp32") from None


def shut_down() -> None:
    """Leaves the process group, so that the interpreter ends without a warning."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _prepare_compilation() -> None:
    """Finds ninja beside this Python, announces a first compilation, removes the lock of a killed one.

    torch would wait for such a lock forever. Each environment has a folder of its own: what was compiled
    against another one's headers would be compiled anew at every change between the two.
    """
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(cache_folder() / "torch_extensions" / environment))
    os.environ["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    for op in COMPILED_OPS:
        folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"]) / op
        _wait_for(folder / "lock")
        if not (folder / f"{op}.so").exists():
            print(f"note: compiling DeepSpeed's {op}, once, about a minute", file=sys.stderr, flush=True)


def _wait_for(lock: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # its owner finished
        while time.time() - lock.stat().st_mtime < STALE_LOCK_SECONDS:
            time.sleep(0.5)
        lock.unlink()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends DeepSpeed's prints to stderr and drops its warnings about the machine; errors stay."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

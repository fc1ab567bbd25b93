"""DeepSpeed: ranks, initialization, and readers of what it holds inside.

The readers return what the mathematics means, not what DeepSpeed stores: gradients are
unscaled (MISMATCHES D15), moments are zeros before the first update.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from jaxnn.experiment.data.cache import cache_folder
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.ports import free_port

STALE_LOCK_SECONDS = 180
COMPILED_OPS = ("fused_adam", "deepspeed_shm_comm")


def join_ranks() -> tuple[int, int, torch.device]:
    """Joins the launcher's process group, or makes one of a single rank.

    Returns:
      This rank, the number of ranks, and the device to train on.

    Raises:
      UserError: the port is taken, or the other ranks cannot be reached.
    """
    if "RANK" not in os.environ:
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
    _prepare_compilation()
    # At stage 3 DeepSpeed calls what torch has renamed.
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="torch.distributed"
    )
    with quiet():
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        _drop_shared_memory_unless_usable(int(os.environ["WORLD_SIZE"]))
        try:
            deepspeed.init_distributed(
                dist_backend=get_accelerator().communication_backend_name()
            )
        except torch.distributed.DistNetworkError as error:
            raise _no_meeting(error) from None
        device = torch.device(get_accelerator().current_device_name())
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device


def fp16_kernels(experiment: Experiment) -> str:
    """Which kernels compute FP16 here: "native" or "software".

    DeepSpeed refuses FP16 on a CPU without AVX512-FP16 or AMX-FP16, although torch
    computes the same format there in software. Under `--fp16_kernels=any` its question
    is answered with yes.

    Raises:
      UserError: no FP16 instructions, and `--fp16_kernels=native`.
    """
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().is_fp16_supported():
        return "native"
    if experiment.fp16_kernels == "native":
        raise UserError(
            "--precision: this CPU has no FP16 instructions (AVX512-FP16 or "
            "AMX-FP16); use --precision=fp32, or --fp16_kernels=any to compute FP16 "
            "in software"
        )
    get_accelerator().is_fp16_supported = lambda: True
    return "software"


def choose_adam(experiment: Experiment) -> tuple[Experiment, str]:
    """Torch's Adam in place of DeepSpeed's FusedAdam where that cannot be compiled.

    Returns:
      The experiment to train, and the reason if it has changed.
    """
    if experiment.optimizer not in ("adam", "adamw") or not experiment.fused_adam:
        return experiment, ""
    from deepspeed.ops.op_builder import FusedAdamBuilder  # type: ignore[attr-defined]

    try:
        with quiet():
            FusedAdamBuilder().load()
    except (
        Exception
    ) as error:  # whatever a missing or broken compiler raises, at any depth
        reason = str(error) or type(error).__name__
        return experiment.replace(fused_adam=False), reason.splitlines()[0].split(": ")[
            0
        ]
    return experiment, ""


def notes(experiment: Experiment, kernels: str, no_fused_adam: str) -> Iterator[str]:
    """What the user is told about the reference before it trains."""
    if no_fused_adam:
        yield (
            f"DeepSpeed's FusedAdam cannot be compiled here ({no_fused_adam}); "
            "training with torch's Adam as under --nofused_adam, whose betas are "
            "double, not float32"
        )
    if kernels == "software":
        yield "this CPU has no FP16 instructions; torch computes FP16 in software"
    if experiment.zero_stage == 0 and experiment.precision == "fp16":
        yield (
            "at ZeRO stage 0 DeepSpeed divides FP16 gradients by a loss scale that "
            "never multiplied the loss (deepspeedai/DeepSpeed pull request 8393), "
            "after one update of zero gradients; it trains as it is, --zero_stage=1 "
            "trains right"
        )
    if experiment.zero_stage == 0 and experiment.precision == "bf16":
        yield (
            "at ZeRO stage 0 DeepSpeed begins BF16 with one update of zero gradients, "
            "so that Adam's first step counts as its second; it trains as it is, "
            "--zero_stage=1 trains right"
        )


def initialize(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]
) -> Any:
    """The DeepSpeed engine around a model and an optimizer over its parameters, under a
    ds_config."""
    import deepspeed

    with quiet():
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config
        )
    return engine


def masters(engine: Any) -> dict[str, torch.Tensor]:
    """torch name -> master parameter, float32 and whole on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param

    read = safe_get_full_fp32_param if engine.zero_optimization() else whole(engine).get
    return {
        name: read(param).detach().clone()
        for name, param in engine.module.named_parameters()
    }


def moments(engine: Any, key: str) -> dict[str, torch.Tensor]:
    """torch name -> one moment of the optimizer, whole on every rank; zeros before the
    first update."""
    from deepspeed.utils import safe_get_full_optimizer_state

    if not any(key in state for state in wrapped(engine).state.values()):
        return {
            name: torch.zeros_like(master) for name, master in masters(engine).items()
        }
    if not engine.zero_optimization():
        read = whole(engine, key).get
    else:
        link_states(engine)
        read = functools.partial(safe_get_full_optimizer_state, optim_state_key=key)
    return {
        name: read(param).detach().clone()
        for name, param in engine.module.named_parameters()
    }


def gradients(engine: Any) -> dict[str, torch.Tensor]:
    """torch name -> gradient of the global batch's mean loss, float32, unscaled and not
    clipped, on every rank.

    To be read after the last `backward` of a step. At ZeRO stage 0 nothing was scaled
    (MISMATCHES D1).
    """
    from deepspeed.utils import safe_get_full_grad

    scale = loss_scale(engine) if engine.zero_optimization() else 1.0
    return {
        name: safe_get_full_grad(param).float() / scale
        for name, param in engine.module.named_parameters()
    }


def loss_scale(engine: Any) -> float:
    """The scale that DeepSpeed's scaler holds for the coming step; 1 outside FP16.

    At ZeRO stage 0 it divides the gradients of a loss that it has not multiplied
    (MISMATCHES D1).
    """
    return float(getattr(engine.optimizer, "loss_scale", None) or 1.0)


def updates(engine: Any) -> int:
    """Updates made so far, by the optimizer's own counter where it keeps one.

    At ZeRO stage 0, FP16 and BF16 begin with one update of zero gradients, before
    training (MISMATCHES D2).
    """
    counters = [
        int(state["step"])
        for state in wrapped(engine).state.values()
        if "step" in state
    ]
    return max(counters, default=engine.global_steps - engine.skipped_steps)


def wrapped(engine: Any) -> torch.optim.Optimizer:
    """The optimizer inside DeepSpeed's own, which holds the moments; at ZeRO stage 0,
    FP32 has no other."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def whole(
    engine: Any, key: str | None = None
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Parameter -> master, or the moment `key`, at ZeRO stage 0: what safe_get_full_*
    cannot read (MISMATCHES D15)."""
    state = wrapped(engine).state
    groups = getattr(
        engine.optimizer, "fp16_groups", [list(engine.module.parameters())]
    )  # of BF16 too
    if not hasattr(
        engine.optimizer, "fp32_groups_flat"
    ):  # a master a parameter, or the parameter itself
        held = getattr(engine.optimizer, "fp32_groups", groups)
        return {
            param: master if key is None else state[master][key]
            for params, masters in zip(groups, held)
            for param, master in zip(params, masters)
        }
    found = {}
    for params, flat in zip(groups, engine.optimizer.fp32_groups_flat):
        values = (flat if key is None else state[flat][key]).split(
            [param.numel() for param in params]
        )
        found |= {
            param: value.view(param.shape) for param, value in zip(params, values)
        }
    return found


def _step_if_finite(engine: Any) -> bool:
    """`step` of a bare torch optimizer, which would apply gradients that are not
    finite."""
    grads = (
        param.grad for param in engine.module.parameters() if param.grad is not None
    )
    if engine.is_gradient_accumulation_boundary() and not all(
        bool(torch.isfinite(grad).all()) for grad in grads
    ):
        engine.zero_grad()
        engine.micro_steps += 1  # as `step` would: the next part is the first of a step
        return True
    engine.step()
    return False


def _cannot_lower(engine: Any, scale: float) -> bool:
    """Whether the scaler of ZeRO stage 0, which raises nothing, has skipped a step at
    its smallest scale."""
    scaler = getattr(engine.optimizer, "loss_scale_config", None)
    return bool(
        scaler
        and scaler.dynamic_loss_scale
        and engine.optimizer.overflow
        and scale <= scaler.min_loss_scale
    )


def _exhausted(number: int, scale: float) -> UserError:
    return UserError(
        f"step {number}: a gradient overflows at the smallest loss scale ({scale:g}); "
        "try a smaller --learning_rate or --precision=fp32"
    )


def link_states(engine: Any) -> None:
    """Lets DeepSpeed find every group's optimizer state: 0.19.8 looks once, after the
    first group's first step."""
    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):  # not at stage 3
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def set_learning_rate(engine: Any, learning_rate: float) -> None:
    """Sets the learning rate of the coming step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate


def backward(engine: Any, loss: torch.Tensor) -> None:
    """Adds the gradients of this rank's share of the loss; at the last part of a step
    they are averaged over ranks."""
    engine.backward(loss, scale_wrt_gas=False)


def step(engine: Any, number: int) -> bool:
    """Ends a part of a step: after the last, updates the parameters, or skips and
    lowers the loss scale.

    DeepSpeed skips an update that is not finite in any precision, but for FP32 at ZeRO
    stage 0, where this does.

    Returns:
      Whether the update was skipped.

    Raises:
      UserError: FP16 overflowed at the smallest loss scale, where DeepSpeed gives up,
        or at stage 0 goes on in vain.
    """
    if not hasattr(engine.optimizer, "overflow"):
        return _step_if_finite(engine)
    scale, is_last = loss_scale(engine), engine.is_gradient_accumulation_boundary()
    try:
        engine.step()
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise _exhausted(number, scale) from None
    if is_last and _cannot_lower(engine, scale):
        raise _exhausted(number, scale)
    return is_last and bool(engine.optimizer.overflow)


def share(workdir: pathlib.Path | None) -> pathlib.Path:
    """The folder that rank 0 has made, on every rank."""
    names = [str(workdir)]
    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(names)
    return pathlib.Path(names[0])


def join_rows(rows: torch.Tensor, world_size: int) -> torch.Tensor:
    """[batches, rows, ...] of each rank -> [batches, rows of all ranks, ...] on every
    rank, in the order of ranks."""
    if world_size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size)]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts, dim=1)


def shut_down() -> None:
    """Leaves the process group, so that the interpreter ends without a warning."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no rank leaves while another still talks to it
        _remove_shared_memory(torch.distributed.get_rank())
        torch.distributed.destroy_process_group()


def _remove_shared_memory(rank: int) -> None:
    """DeepSpeed's reductions between CPU ranks leave 130 MB a run in the machine's
    memory, until it is restarted."""
    address, port = (
        os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")
    )
    pathlib.Path(
        f"/dev/shm/deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{rank}"
    ).unlink(missing_ok=True)


def leave(status: int) -> None:
    """Ends this process; of several ranks without the interpreter's teardown, in which
    gloo's threads may abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(status)
    sys.exit(status)


def _drop_shared_memory_unless_usable(world_size: int) -> None:
    """Leaves DeepSpeed's compiled reductions between CPU ranks to gloo for one rank, or
    where nothing compiles."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    try:
        usable = world_size > 1 and builder is not None and bool(builder.load())
    except Exception:  # whatever a missing or broken compiler raises, at any depth
        usable = False
    if builder is not None and not usable:
        deepspeed.ops.__compatible_ops__[builder.NAME] = False


def _no_meeting(error: Exception) -> UserError:
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if "EADDRINUSE" in str(error):
        return UserError(
            f"--master_port: {place} is taken by another program; give the launcher a "
            "free one, e.g. deepspeed --master_port=29511 --module torch_ref.train"
        )
    return UserError(
        f"--master_addr, --master_port: the ranks do not meet at {place}: "
        f"{str(error).splitlines()[0]}"
    )


def _prepare_compilation() -> None:
    """Finds ninja beside this Python, announces a first compilation, removes the lock
    of a killed one.

    torch would wait for such a lock forever. Each environment has a folder of its own:
    what was compiled against another one's headers would be compiled anew at every
    change between the two.
    """
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]
    os.environ.setdefault(
        "TORCH_EXTENSIONS_DIR", str(cache_folder() / "torch_extensions" / environment)
    )
    os.environ["PATH"] = os.pathsep.join(
        [str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    for op in COMPILED_OPS if os.environ["WORLD_SIZE"] != "1" else COMPILED_OPS[:1]:
        folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"]) / op
        _wait_for(folder / "lock")
        if not (folder / f"{op}.so").exists():
            print(
                f"note: compiling DeepSpeed's {op}, once, about a minute",
                file=sys.stderr,
                flush=True,
            )


def _wait_for(lock: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # its owner finished
        while time.time() - lock.stat().st_mtime < STALE_LOCK_SECONDS:
            time.sleep(0.5)
        lock.unlink()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends DeepSpeed's prints to stderr and drops its warnings about the machine;
    errors stay."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

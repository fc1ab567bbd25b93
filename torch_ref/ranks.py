"""The ranks of a run: one process each, joined in torch's process group."""

import os
import pathlib
import sys
import warnings
from typing import Any

import torch

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.ports import free_port
from torch_ref import holders, kernels

SHARED_MEMORY = pathlib.Path("/dev/shm")
BUFFER = "deepspeed_allreduce_buffer"
"""What the names of DeepSpeed's buffers begin with (csrc/cpu/comm/shm.cpp)."""


def join() -> tuple[int, int, torch.device]:
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
    world_size = int(os.environ["WORLD_SIZE"])
    sweep_shared_memory()
    # Before anything is compiled, or loaded from the folder that this chooses.
    kernels.prepare_compilation(world_size)
    # DeepSpeed 0.19.8 calls functions at stage 3 that torch has renamed.
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="torch.distributed"
    )
    with kernels.quiet():
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        accelerator: Any = get_accelerator()
        # Before DeepSpeed makes its backend, which asks for the op (comm/torch.py,
        # build_shm_op).
        kernels.drop_unusable_shared_memory(world_size)
        try:
            deepspeed.init_distributed(
                dist_backend=accelerator.communication_backend_name()
            )
        except torch.distributed.DistNetworkError as error:
            raise _unreachable(error) from None
        device = torch.device(accelerator.current_device_name())
    return int(os.environ["RANK"]), world_size, device


def sweep_shared_memory() -> None:
    """Removes the buffers of ranks that were killed, 66 MiB each.

    A rank has its own and its peers' open from beginning to end.
    """
    buffers = [*SHARED_MEMORY.glob(f"{BUFFER}_{os.getuid()}_*")]
    for path in holders.left_behind(buffers):
        # Another rank that starts may sweep too.
        path.unlink(missing_ok=True)


def share(workdir: pathlib.Path | None) -> pathlib.Path:
    """Returns rank 0's run directory on every rank."""
    names = [str(workdir)]
    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(names)
    return pathlib.Path(names[0])


def join_rows(rows: torch.Tensor, world_size: int) -> torch.Tensor:
    """Concatenates rows over the ranks, in their order; every rank gets the result.

    Args:
      rows: [batches, rows, ...] of this rank.
      world_size: number of ranks.

    Returns:
      [batches, rows of all ranks, ...].
    """
    if world_size == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(world_size)]
    torch.distributed.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered, dim=1)


def shut_down() -> None:
    """Leaves the process group, so that the interpreter exits without a warning."""
    if not torch.distributed.is_initialized():
        return
    # No rank may leave while another still communicates with it.
    torch.distributed.barrier()
    _remove_shared_memory(torch.distributed.get_rank())
    torch.distributed.destroy_process_group()


def leave(status: int) -> None:
    """Ends this process with an exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's teardown races gloo's threads, which may abort.
    if os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(status)
    sys.exit(status)


def _remove_shared_memory(rank: int) -> None:
    """Removes the buffer of DeepSpeed's reductions between CPU ranks, if there is one.

    It holds 130 MB of the machine's memory per run, until the machine restarts.
    """
    address = os.environ.get("MASTER_ADDR", "")
    port = os.environ.get("MASTER_PORT", "")
    name = f"{BUFFER}_{os.getuid()}_{address}_{port}_{rank}"
    (SHARED_MEMORY / name).unlink(missing_ok=True)


def _unreachable(error: Exception) -> UserError:
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

"""Several processes, on this host or on many, that train one network together.

Each process has the devices of its host, loads its share of each batch and takes part
in every step; only process 0 writes and prints. They find each other by
`--coordinator_address`, or by what SLURM, Open MPI or a TPU pod puts into the
environment (`--distributed`). When one process dies, the others end within seconds;
when one is stopped, within minutes.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxnn.experiment import ports
from jaxnn.experiment.data.dataset import SPLITS, Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.liveness import SILENT_SECONDS, Peers

GRACE = 2.0
"""Seconds in which a process may end with a message of its own after another has."""
COMPARED = 64
"""Inputs of a split that are compared between processes; all may not fit in memory."""
HEARTBEAT_TIMEOUT = 300
"""Seconds after which JAX misses a process that never came to be one of the `Peers`."""
MARGIN = 60
"""Seconds from our time limit to JAX's, which ends a process with a stack trace."""


@contextlib.contextmanager
def joined(experiment: Experiment) -> Iterator[None]:
    """Joins the other processes, if there are any, for the time of the context.

    To be entered before JAX touches a device. An error in one process ends all.

    Raises:
      UserError: no cluster is described, its port is taken, or the processes' flags
        differ.
    """
    if not (experiment.coordinator_address or experiment.distributed):
        yield
        return
    peers = None
    try:
        _initialize(experiment)
        _agree_on_flags(experiment)
        peers = _connected(experiment)
        yield
    except BaseException as error:
        # Ends the process here: JAX's own exit would wait for the others, which still
        # train.
        _leave(error, peers)
    if peers:
        peers.leave()


def agree_on_data(data: Dataset) -> None:
    """Raises UserError, in every process, if one holds other data than process 0.

    Compares all targets and some of the inputs.
    """
    if jax.process_count() == 1:
        return
    held = {}
    for split in SPLITS:
        inputs = getattr(data, f"{split}_inputs")
        targets = getattr(data, f"{split}_targets")
        if inputs is not None:
            held[split] = _content(inputs, targets)
    for process, split in _differing(held):
        raise UserError(
            f"--dataset: process {process} holds another {split} split than process 0; "
            "give all hosts the same files, of the same versions of what reads them"
        )


def _initialize(experiment: Experiment) -> None:
    """Joins JAX's cluster; raises UserError if there is none, or its port is taken."""
    _require_free_port(experiment)
    # JAX would end the process with a stack trace, so a message of ours comes first.
    limit = threading.Timer(
        experiment.initialization_timeout, _end, [_too_late(experiment), 2]
    )
    limit.start()
    # Without these JAX reads the environment.
    given = {}
    if experiment.coordinator_address:
        given = {
            "coordinator_address": experiment.coordinator_address,
            "num_processes": experiment.num_processes,
            "process_id": experiment.process_id,
            # JAX would come before `Peers`, with pages of a stack trace.
            "heartbeat_timeout_seconds": HEARTBEAT_TIMEOUT,
        }
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=experiment.initialization_timeout + MARGIN
        )
        LIBC.signal(signal.SIGABRT, ON_ABORT)
    except (ValueError, RuntimeError) as error:
        if given:
            raise UserError(
                f"--coordinator_address: process {experiment.process_id} cannot use "
                f"{experiment.coordinator_address}: {str(error).splitlines()[0]}"
            ) from None
        raise UserError(
            "--distributed: the environment describes no cluster (SLURM, Open MPI, "
            "TPU pod); give --coordinator_address, --num_processes and --process_id"
        ) from None
    finally:
        limit.cancel()


def _require_free_port(experiment: Experiment) -> None:
    """Raises UserError in process 0 if it cannot listen for the others."""
    address = experiment.coordinator_address
    # JAX would end the process with a segmentation fault.
    if address and not experiment.process_id:
        port = address.rpartition(":")[2]
        if ports.is_taken(int(port)):
            raise UserError(
                f"--coordinator_address: port {port} of this host is taken by another "
                "program; choose a free one (--port of launch/multi_host.sh)"
            )


def _too_late(experiment: Experiment) -> str:
    """Returns the message of a process whose cluster was not complete in time."""
    seconds = experiment.initialization_timeout
    address = experiment.coordinator_address
    process = experiment.process_id
    if not address:
        return (
            f"--distributed: not all processes of the cluster came within {seconds} "
            "s; see --initialization_timeout"
        )
    if process:
        return (
            f"--coordinator_address: process {process} found nobody at {address} "
            f"within {seconds} s; start process 0 there and open the port, or raise "
            "--initialization_timeout"
        )
    return (
        f"--num_processes: process 0 waited {seconds} s at {address} and not all "
        f"{experiment.num_processes} processes came; start the others, or raise "
        "--initialization_timeout"
    )


def _agree_on_flags(experiment: Experiment) -> None:
    """Raises UserError, in every process, if the flags of one are not process 0's."""
    lines = [
        *options.to_flagfile(experiment).splitlines(),
        # Not in a flagfile, but they change what a process does.
        f"--resume={experiment.resume}",
        f"--init_params={bool(experiment.init_params)}",
    ]
    held = {line.partition("=")[0]: line.encode() for line in lines}
    for process, flag in _differing(held):
        raise UserError(
            f"{flag}: process {process} was given another value than process 0; start "
            "all with the same flags"
        )


def _content(inputs: np.ndarray, targets: np.ndarray) -> bytes:
    """Returns the shape and some of the inputs, and all targets."""
    count = min(COMPARED, len(inputs))
    places = np.linspace(0, len(inputs) - 1, count).astype(int)
    some = np.ascontiguousarray(inputs[places])
    return repr(inputs.shape).encode() + some.tobytes() + targets.tobytes()


def _differing(held: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """Yields (process, name) of what a process holds that differs from process 0's.

    Args:
      held: name -> content; equally many in all processes.
    """
    # Four bytes each: without x64 JAX gathers no 64-bit integers.
    digests = [
        int.from_bytes(hashlib.blake2b(value, digest_size=4).digest(), "big")
        for value in held.values()
    ]
    gathered = np.asarray(
        multihost_utils.process_allgather(np.array(digests, np.uint32))
    )
    for process, theirs in enumerate(gathered):
        for name, is_same in zip(held, theirs == gathered[0]):
            if not is_same:
                yield process, name


def _connected(experiment: Experiment) -> Peers | None:
    """Returns connections to the other processes that tell when one ends."""
    # A cluster's own launcher ends all processes when one ends.
    if not experiment.coordinator_address:
        return None
    peers = Peers(jax.process_index(), jax.process_count(), _on_end)
    port = int(multihost_utils.broadcast_one_to_all(np.int32(peers.port)))
    host = experiment.coordinator_address.rpartition(":")[0]
    peers.connect(host, port)
    return peers


def _on_end(process: int, is_silent: bool) -> None:
    """Ends this process because another one ended, or is silent."""
    if not is_silent:
        _one_has_ended(process)
    _end(
        f"process {process} has been silent for {SILENT_SECONDS:g} s: it is stopped, "
        f"or its host hangs, so process {jax.process_index()} ends; go on from the "
        "last checkpoint with --resume",
        1,
    )


def _one_has_ended(process: int | None) -> None:
    """Ends this process because another one ended, known or unknown which."""
    # Whoever knows which one has ended prints its message first.
    time.sleep(GRACE if process is not None else 2 * GRACE)
    name = "another process" if process is None else f"process {process}"
    _end(
        f"{name} has ended before the run did, so process {jax.process_index()} stops "
        "too; see that one's messages, then go on from the last checkpoint with "
        "--resume",
        1,
    )


# JAX aborts a process from a thread of C++ when it misses another one; Python's own
# signal handlers would never run.
LIBC = ctypes.CDLL(None)
ON_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: _one_has_ended(None))


def _leave(error: BaseException, peers: Peers | None) -> None:
    """Prints what went wrong and ends the process."""
    # A collective call fails when another process ends. That end is what the user
    # should read about, so `_one_has_ended` gets the time to print it.
    if isinstance(error, jax.errors.JaxRuntimeError) and peers:
        time.sleep(2 * GRACE)
    if isinstance(error, UserError):
        _end(str(error), 2)
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        traceback.print_exception(error)
    status = 1
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        status = error.code
    _end(None, status)


def _end(message: str | None, status: int) -> None:
    """Ends the process at once, from any thread."""
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

"""Several processes, on this host or on many, that train one network together.

Each process has the devices of its host, loads its share of each batch and takes part
in every step; process 0 alone writes and prints. They find each other by
`--coordinator_address`, or by what SLURM, Open MPI or a TPU pod says in the environment
(`--distributed`). A process that dies takes the others with it, `GRACE` seconds later.
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

from jaxnn.experiment.data.dataset import SPLITS, Dataset
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import options
from jaxnn.experiment.flags.config import Experiment
from jaxnn.liveness import Company

GRACE = 2.0
"""Seconds that a process has to end by itself, with a message of its own, once another
has."""
LOOKED_AT = 64
"""Inputs of a split that are compared between processes."""
MARGIN = 60
"""Seconds by which JAX's time limit, which ends a process with a stack trace, is later
than ours."""


@contextlib.contextmanager
def joined(experiment: Experiment) -> Iterator[None]:
    """Holds this process among the others, if there are any; to be entered before JAX
    touches a device.

    What goes wrong in one process ends all: JAX's own way out would wait for those that
    are left.

    Raises:
      UserError: no cluster is described, or the processes' flags differ.
    """
    if not (experiment.coordinator_address or experiment.distributed):
        yield
        return
    company = None
    try:
        _initialize(experiment)
        _agree(experiment)
        company = _accompanied(experiment)
        yield
    except BaseException as error:
        _leave(error, company)
    if company:
        company.part()


def _initialize(experiment: Experiment) -> None:
    limit = threading.Timer(
        experiment.initialization_timeout, _end, [_too_late(experiment), 2]
    )
    limit.start()
    given = (
        {
            "coordinator_address": experiment.coordinator_address,
            "num_processes": experiment.num_processes,
            "process_id": experiment.process_id,
        }
        if experiment.coordinator_address
        else {}
    )
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


def _too_late(experiment: Experiment) -> str:
    seconds, address, process = (
        experiment.initialization_timeout,
        experiment.coordinator_address,
        experiment.process_id,
    )
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


def agree_on_data(data: Dataset) -> None:
    """Raises UserError, in every process, if one holds other data than process 0: other
    targets, or other inputs.

    Of the inputs, which may be larger than memory, 64 a split are looked at.
    """
    if jax.process_count() == 1:
        return
    held = {}
    for split in SPLITS:
        inputs, targets = (
            getattr(data, f"{split}_inputs"),
            getattr(data, f"{split}_targets"),
        )
        if inputs is not None:
            some = np.linspace(0, len(inputs) - 1, min(LOOKED_AT, len(inputs))).astype(
                int
            )
            held[split] = (
                repr(inputs.shape).encode()
                + np.ascontiguousarray(inputs[some]).tobytes()
                + targets.tobytes()
            )
    for process, split in _differing(held):
        raise UserError(
            f"--dataset: process {process} holds another {split} split than process 0; "
            "give all hosts the same files, of the same versions of what reads them"
        )


def _agree(experiment: Experiment) -> None:
    """Raises UserError, in every process, on the first flag that one of them was given
    otherwise than process 0."""
    lines = [
        *options.to_flagfile(experiment).splitlines(),
        f"--resume={experiment.resume}",
        f"--init_params={bool(experiment.init_params)}",
    ]
    for process, flag in _differing(
        {line.partition("=")[0]: line.encode() for line in lines}
    ):
        raise UserError(
            f"{flag}: process {process} was given another value than process 0; start "
            "all with the same flags"
        )


def _differing(held: Mapping[str, bytes]) -> Iterator[tuple[int, str]]:
    """(process, name) of what a process holds otherwise than process 0; all must hold
    as many things."""
    digests = [
        int.from_bytes(hashlib.blake2b(value, digest_size=4).digest(), "big")
        for value in held.values()
    ]
    gathered = np.asarray(
        multihost_utils.process_allgather(np.array(digests, np.uint32))
    )
    for process, theirs in enumerate(gathered):
        yield from (
            (process, name)
            for name, same in zip(held, theirs == gathered[0])
            if not same
        )


def _accompanied(experiment: Experiment) -> Company | None:
    """A connection to the other processes that tells when one ends; under a cluster's
    own launcher that sees to it."""
    if not experiment.coordinator_address:
        return None
    company = Company(jax.process_index(), jax.process_count(), _one_has_ended)
    port = int(multihost_utils.broadcast_one_to_all(np.int32(company.port)))
    company.meet(experiment.coordinator_address.rpartition(":")[0], port)
    return company


def _one_has_ended(process: int | None) -> None:
    """Ends this process because another did, which is not always known."""
    time.sleep(GRACE if process is not None else 2 * GRACE)
    name = "another process" if process is None else f"process {process}"
    _end(
        f"{name} has ended before the run did, so process {jax.process_index()} stops "
        "too; see that one's messages, then go on from the last checkpoint with "
        "--resume",
        1,
    )


LIBC = ctypes.CDLL(None)
ON_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: _one_has_ended(None))
"""JAX aborts a process from a thread of C++ when it misses another; Python's own
handlers would never run."""


def _leave(error: BaseException, company: Company | None) -> None:
    """Says what went wrong and ends the process."""
    if isinstance(error, jax.errors.JaxRuntimeError) and company:
        time.sleep(
            2 * GRACE
            # a call that another process's end has broken: that end is what is to be said
        )
    if isinstance(error, UserError):
        _end(str(error), 2)
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        traceback.print_exception(error)
    _end(
        None,
        error.code
        if isinstance(error, SystemExit) and isinstance(error.code, int)
        else 1,
    )


def _end(message: str | None, status: int) -> None:
    """Ends the process at once, from any thread."""
    if message:
        print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

"""How much memory there is, asked before anything large is allocated: Linux grants
more than it has, and kills the process when it is used."""

import os
import pathlib

from jaxnn.experiment.errors import UserError

LIMIT_OF_CONTAINER = pathlib.Path("/sys/fs/cgroup/memory.max")


def require_room(num_bytes: float, flag: str, what: str) -> None:
    """Raises UserError if something does not fit into this machine's memory.

    Args:
      num_bytes: what it takes at least.
      flag: begins the message.
      what: names it in the message.
    """
    here = total()
    if num_bytes > here:
        raise UserError(
            f"{flag}: {what} take {num_bytes / 2**30:.3g} GiB at least, and this "
            f"machine has {here / 2**30:.3g}; choose smaller ones"
        )


def total() -> int:
    """Returns the bytes of memory of this machine, or of the container it is in."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # "max" where there is no limit.
    if LIMIT_OF_CONTAINER.is_file():
        limit = LIMIT_OF_CONTAINER.read_text().strip()
        here = min(here, int(limit)) if limit.isdigit() else here
    return here


def free_memory() -> int | None:
    """Returns how many bytes programs can still get, or None if nobody says."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kibibytes = {line.split()[0]: line.split()[1] for line in lines}
    available = kibibytes.get("MemAvailable:")
    return int(available) * 1024 if available else None

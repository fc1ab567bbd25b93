"""The processor: its name, and how many of its cores this process may use."""

import os
import pathlib
import platform

QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time and of the period in which a container may use them;
"max" without a limit (Linux, cgroup v2)."""


def usable() -> int:
    """Returns the number of cores, 1 at least."""
    # macOS and Windows have no affinity.
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):
        return count
    return max(min(count, quota // period), 1)


def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return (named or [platform.machine()])[0]

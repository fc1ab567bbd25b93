"""Which devices a run trains on."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

# jax.Device is a variable, which a type expression cannot name.
Devices = list[Any]
"""jax.Device objects."""


def choose_devices(
    experiment: Experiment, paying: Callable[[int], int] | None = None
) -> Devices:
    """Returns this process's devices to train on: `--num_devices`, or all of them.

    Args:
      experiment: what is trained.
      paying: number of devices -> how many of them a step's work pays for; None for all
        of them. Asked on a CPU without `--num_devices`.

    Raises:
      UserError: more asked for than there are, or the batch does not divide.
    """
    devices = jax.local_devices()
    if jax.process_count() > 1:
        return _all_devices(experiment, devices)
    count = experiment.num_devices or len(devices)
    if count > len(devices):
        raise UserError(
            f"--num_devices: {count} asked for, {len(devices)} here; for virtual CPU "
            f"devices set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    if paying and count > 1 and not experiment.num_devices:
        count = paying(count)
    microbatches = experiment.accumulation_steps
    # Each microbatch is divided over the devices. That it divides the batch has been
    # checked with the flags.
    rows = experiment.batch_size // microbatches
    if rows % count:
        times = (
            f" times --accumulation_steps={microbatches}" if microbatches > 1 else ""
        )
        fitting = max(number for number in range(1, count + 1) if rows % number == 0)
        raise UserError(
            f"--batch_size: {experiment.batch_size} is not divisible by the {count} "
            f"devices here{times}; change it, or leave devices out with "
            f"--num_devices={fitting}"
        )
    return devices[:count]


def _all_devices(experiment: Experiment, devices: Devices) -> Devices:
    """Returns all devices of this process, one of several that train together."""
    # pmap over several processes spans all of their devices.
    count = jax.device_count()
    if experiment.num_devices not in (0, count):
        raise UserError(
            f"--num_devices: {experiment.num_devices} asked for, but "
            f"{jax.process_count()} processes train on all their devices, {count} "
            "here; leave it out"
        )
    if experiment.batch_size % (count * experiment.accumulation_steps):
        raise UserError(
            f"--batch_size: {experiment.batch_size} is not divisible by "
            f"--accumulation_steps={experiment.accumulation_steps} times {count} "
            f"devices of {jax.process_count()} processes; change it"
        )
    return devices

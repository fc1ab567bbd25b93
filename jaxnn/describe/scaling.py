"""Data-parallel training on paper: how long a step takes on 1, 2, 4, ... devices.

A step computes, then sums the gradients over the devices in a ring:

    compute    = FLOPs of forward and backward pass / (peak * utilization)
    all-reduce = 2 (N - 1) / N * bytes of the gradients / bandwidth
                 + 2 (N - 1) * latency
    efficiency = compute / step

(Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations": no device can send less; N - 1 messages reduce and N - 1 spread.) jaxnn
sums after the backward pass: step = compute + all-reduce. What sums layer by layer
while the backward pass goes on, as torch's DistributedDataParallel does (Li et al.
2020), hides at most that much: step = forward + max(backward, all-reduce).

Left out: the optimizer's update, reading data, waiting for the slowest device, and
synchronized batch statistics, which are small.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Machine(NamedTuple):
    """N equal devices in a ring.

    Attributes:
      peak: FLOP/s of a device, in the compute dtype.
      utilization: share of the peak that training reaches, above 0, at most 1.
      bandwidth: bytes a second that a device sends to its neighbour.
      latency: seconds that an empty message takes.
    """

    peak: float
    utilization: float
    bandwidth: float
    latency: float = 0.0


class Work(NamedTuple):
    """What a device does in a step.

    Attributes:
      forward: FLOPs of the forward pass.
      backward: FLOPs of the backward pass.
      gradients: bytes of the gradients.
    """

    forward: float
    backward: float
    gradients: float


class Prediction(NamedTuple):
    """A step on some devices; times in seconds.

    Attributes:
      devices: number of devices, N.
      forward: time of the forward pass.
      backward: time of the backward pass.
      all_reduce: time in which the gradients are summed.
    """

    devices: int
    forward: float
    backward: float
    all_reduce: float

    @property
    def compute(self) -> float:
        """Time in which a device computes."""
        return self.forward + self.backward

    @property
    def step(self) -> float:
        """Time of a step that sums after its backward pass."""
        return self.compute + self.all_reduce

    @property
    def communication(self) -> float:
        """Share of the sum in such a step."""
        return self.all_reduce / self.step

    @property
    def efficiency(self) -> float:
        """Throughput over N times that of a device alone."""
        return self.compute / self.step

    @property
    def overlapped_efficiency(self) -> float:
        """The same of a step that sums within its backward pass, at best."""
        step = self.forward + max(self.backward, self.all_reduce)
        return self.compute / step


def predict(work: Work, machine: Machine, devices: int) -> Prediction:
    """Returns what a step takes on a number of devices.

    Args:
      work: of one device, whatever their number.
      machine: the devices.
      devices: their number, at least 1.
    """
    rate = machine.peak * machine.utilization
    return Prediction(
        devices,
        work.forward / rate,
        work.backward / rate,
        all_reduce_seconds(work.gradients, machine, devices),
    )


def all_reduce_seconds(size: float, machine: Machine, devices: int) -> float:
    """Returns the time of a ring all-reduce of `size` bytes."""
    messages = 2 * (devices - 1)
    return messages * (size / devices / machine.bandwidth + machine.latency)


def counts(most: int) -> Iterator[int]:
    """Yields 1, 2, 4, ... and `most`."""
    number = 1
    while number < most:
        yield number
        number *= 2
    yield most

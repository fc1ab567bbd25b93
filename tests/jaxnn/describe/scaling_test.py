"""Scaling on paper against figures by hand and a published one."""

import math

import pytest

from jaxnn.describe import scaling
from jaxnn.describe.scaling import Machine, Work

MACHINE = Machine(peak=100.0, utilization=0.5, bandwidth=10.0, latency=0.25)
WORK = Work(forward=50.0, backward=100.0, gradients=40.0)


def test_by_hand():
    """Four devices: six messages of a quarter of 40 bytes, a second and a quarter
    each."""
    predicted = scaling.predict(WORK, MACHINE, 4)
    assert predicted == (4, 1.0, 2.0, 7.5)
    assert predicted.step == 10.5
    assert predicted.communication == 7.5 / 10.5
    assert predicted.efficiency == 3 / 10.5
    assert predicted.overlapped_efficiency == 3 / 8.5


def test_a_device_alone_sends_nothing():
    predicted = scaling.predict(WORK, MACHINE, 1)
    assert (predicted.all_reduce, predicted.efficiency) == (0, 1)
    assert predicted.overlapped_efficiency == 1


def test_without_latency_no_number_of_devices_doubles_the_bytes():
    machine = MACHINE._replace(latency=0.0)
    times = [scaling.all_reduce_seconds(40.0, machine, n) for n in range(1, 1000)]
    assert times == sorted(times)
    assert 7.9 < times[-1] < 8.0


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_counts(most, expected):
    assert list(scaling.counts(most)) == expected


def test_resnet_101_on_128_servers():
    """Horovod's docs/benchmarks.md: 90 % efficiency of 128 servers of 4 Pascal GPUs at
    25 Gbit/s; of 16 GPUs 1656.82 images/s at batch 64 each. It lies between a sum after
    the backward pass and one within it."""
    machine = Machine(peak=1.0, utilization=1.0, bandwidth=25e9 / 8)
    # In seconds of the GPU, the backward pass being twice the forward pass; 44.5
    # million float32 gradients.
    compute = 64 / (1656.82 / 16)
    work = Work(forward=compute / 3, backward=compute * 2 / 3, gradients=178e6)
    predicted = scaling.predict(work, machine, 128)
    assert math.isclose(predicted.all_reduce, 0.113, rel_tol=1e-2)
    assert 0.84 < predicted.efficiency < 0.90 < predicted.overlapped_efficiency


def test_resnet_50_on_32_servers():
    """Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 4: the backward pass
    of 32 images takes a P100 120 ms, eight of them share 50 Gbit/s, and 256 GPUs reach
    90 % of what 8 did. It lies between a sum after the backward pass and one within
    it."""
    machine = Machine(peak=1.0, utilization=1.0, bandwidth=50e9 / 8)
    # In seconds of the GPU; torchvision's 25,557,032 parameters in float32.
    work = Work(forward=0.06, backward=0.12, gradients=4 * 25_557_032)
    predicted = scaling.predict(work, machine, 32)
    assert math.isclose(predicted.all_reduce, 0.0317, rel_tol=1e-2)
    assert 0.84 < predicted.efficiency < 0.90 < predicted.overlapped_efficiency

"""FLOPs of a training step, and the most FLOP/s that this machine's products reach.

    python -m parity.speed.roofline --flagfile=FILE

Prints {"step": FLOPs, "peak": FLOP/s} as JSON. A process of its own, so that who
measures holds no device.
"""

import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import train
from jaxnn.describe import abstract_step, layer_table
from jaxnn.experiment.data.load import load_dataset
from jaxnn.experiment.flags import command_line
from jaxnn.experiment.flags.config import Experiment

SIZE = 2048
"""Rows and columns of the matrices."""
TRIES = 8


def main(experiment: Experiment) -> None:
    """Flags -> FLOPs of a step and the peak, printed."""
    train.configure(experiment)
    figures = {"step": step_flops(experiment), "peak": peak()}
    print(json.dumps(figures))


def step_flops(experiment: Experiment) -> int:
    """Returns FLOPs of forward and backward pass over a full batch of all devices.

    Counted from shapes as jaxnn.describe does; the optimizer and evaluation are left
    out.
    """
    # One device has the whole batch, so that none is left out.
    whole = experiment.replace(num_devices=1)
    step = abstract_step.build(whole, load_dataset(experiment).signature)
    return layer_table.trace(step).gradient_flops * experiment.accumulation_steps


def peak() -> float:
    """Returns the FLOP/s of the fastest of some float32 products of two matrices.

    On a CPU the larger of JAX's and of NumPy's, whose kernels differ.
    """
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    on_device = jax.device_put(matrix)
    multiply = jax.jit(jnp.matmul)
    ways: list[Callable] = [lambda: multiply(on_device, on_device).block_until_ready()]
    if jax.default_backend() == "cpu":
        ways.append(lambda: matrix @ matrix)
    seconds = min(_fastest(way) for way in ways)
    return 2 * SIZE**3 / seconds


def _fastest(work: Callable) -> float:
    work()  # Compiles, and wakes the threads.
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    command_line.run(main, __doc__, default_precision="fp32")

"""How many cores of a CPU a run trains on, each as a virtual device of JAX.

One device leaves to XLA which operations it divides over the cores, and many it does
not divide. Two virtual devices divide everything, but add up gradients and repeat the
update: a Transformer or an LSTM gains up to a third on two cores, a small network loses
all it had.
"""

import functools
import os
from collections.abc import Callable

import flax.linen as nn
import jax

from jaxnn import flops
from jaxnn.experiment import cores
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.flags.config import Experiment
from jaxnn.train_step import TrainState

BACKWARD = 3
"""A training step's FLOPs over those of its forward pass."""
LEAST_FLOPS = 2.5e8
"""Of a step on each device: about 2 ms of a core, against 0.1 to meet the others."""
LEAST_FLOPS_PER_PARAMETER = 2000
"""Likewise. A parameter is summed over the devices and updated on each, which moves
some 50 bytes; a core does about 40 FLOPs meanwhile for each of them."""
OWN_CHOICES = ("xla_force_host_platform_device_count", "JAX_NUM_CPU_DEVICES")
"""With these of XLA_FLAGS and the environment the user has chosen."""


def offer_cores(experiment: Experiment) -> None:
    """Makes each core a virtual device, of which `paying_devices` takes what pays.

    To be called before JAX touches a device, by a program of its own: no process can
    change their number again.
    """
    # Across processes pmap takes all devices there are.
    is_joined = experiment.coordinator_address or experiment.distributed
    if not is_joined and not is_chosen():
        jax.config.update("jax_num_cpu_devices", cores.usable())


def is_chosen() -> bool:
    """Returns whether the user's environment says how many devices a CPU has."""
    flags = os.environ.get("XLA_FLAGS", "")
    return OWN_CHOICES[0] in flags or OWN_CHOICES[1] in os.environ


def chooser(
    experiment: Experiment, model: nn.Module, state: TrainState, signature: Signature
) -> Callable[[int], int] | None:
    """Returns `paying_devices` of a run, or None where all devices are to be used."""
    if jax.default_backend() != "cpu" or is_chosen():
        return None
    return functools.partial(paying_devices, experiment, model, state, signature)


def paying_devices(
    experiment: Experiment,
    model: nn.Module,
    state: TrainState,
    signature: Signature,
    most: int,
) -> int:
    """Returns the number of devices that a step's work pays for, 1 at least.

    Args:
      experiment: what is trained; its microbatches divide by the number.
      model: network.
      state: its state.
      signature: shapes of the data.
      most: devices there are.
    """
    rows = experiment.batch_size // experiment.accumulation_steps
    inputs = jax.ShapeDtypeStruct((rows, *signature.input_shape), signature.input_dtype)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    forward = jax.make_jaxpr(model.apply)(variables, inputs)
    work = BACKWARD * experiment.accumulation_steps * flops.total(forward)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    limit = min(
        most,
        work / LEAST_FLOPS,
        work / (LEAST_FLOPS_PER_PARAMETER * parameters),
    )
    counts = range(2, int(limit) + 1)
    return max((count for count in counts if rows % count == 0), default=1)

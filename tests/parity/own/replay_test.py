"""Tests of parity/own/replay.py: a recorded step, taken again by a port."""

import jax
import jax.numpy as jnp
import numpy as np

from parity.noise import jitter
from parity.own.environment import of_a_port
from parity.own.port import Port
from parity.own.replay import PortReplay
from tests.parity.own import recorded


def rounded(params, x):
    """The port as torch's autocast would run it."""
    program = recorded.port("mlp_function")
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    exact = x.dtype == jnp.float64
    return program.model(params, x) if exact else program.model(narrow, x)


def test_draws_under_autocast_are_not_all_one(mlp_trace, monkeypatch):
    monkeypatch.setitem(mlp_trace.meta, "autocast", "bf16")
    program, rng = recorded.port("mlp_function"), np.random.default_rng(0)
    with of_a_port():
        port = Port(mlp_trace, rounded, program.loss, None, program.convert)
        replay = PortReplay(port.ported, 0, port.objective, None)
        inputs = replay.inputs(0)
        moved = {name: jitter(array, rng) for name, array in inputs.compute.items()}
        first, second = (
            replay.gradients_rounding(inputs._replace(compute=compute))
            for compute in (inputs.compute, moved)
        )
    gradients = [name for name in first if name.startswith("grads/")]
    assert all(abs(first[n] / second[n] - 1) > 1e-3 for n in gradients)

"""Ports agree with their torch programs, and their planted faults are faults."""

import contextlib
import functools
import importlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.parity.own.ports import running

NAMES = (
    "gpt2",
    "gpt2_dropout",
    "bert",
    "llama",
    "llama_tied",
    "resnet",
    "nnx_mlp",
    "mlp_function",
)
PORTS = {
    name: importlib.import_module(f"tests.parity.own.ports.{name}") for name in NAMES
}
FAULTS = [(name, fault) for name, port in PORTS.items() for fault in port.FAULTS]
BOUNDS = {np.float64: 1e-9, np.float32: 2e-5}  # rounding: some 100 float32 units


@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_port_agrees(name, dtype):
    port = PORTS[name]
    module, before = (running.torch_module(port, dtype) for _ in range(2))
    loss, masks = running.torch_step(port, module)
    expected = running.torch_result(port, module, loss)
    actual = running.jax_result(port, before, masks, dtype)
    assert running.largest_distance(actual, expected) < BOUNDS[dtype]


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_fault_changes_the_step(name, fault):
    honest, faulty = sound(name)[0], observed(name, fault)[0]
    assert running.largest_distance(faulty, honest) > 1e-6


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_fault_shows_where_it_says(name, fault):
    planted = PORTS[name].FAULTS[fault]
    (honest, outputs), (faulty, others) = sound(name), observed(name, fault)
    first = first_difference(outputs, others)
    if planted.shows_in == "forward":
        assert first is not None
        assert is_within(first, planted.location)
    else:
        assert first is None
        kind = {"gradients": "grads", "buffers": "batch_stats"}[planted.shows_in]
        changed = {n for n in honest if not np.array_equal(honest[n], faulty[n])}
        assert {n.split("/")[0] for n in changed} == {kind}


@functools.cache
def sound(name: str) -> tuple[running.Flat, list]:
    return observed(name)


@functools.cache
def observed(name: str, fault: str | None = None) -> tuple[running.Flat, list]:
    """Returns the result of a step in float64, and outputs as (module, tensors)."""
    port = PORTS[name]
    module = running.torch_module(port, np.float64)
    plant = port.FAULTS[fault].plant(module) if fault else contextlib.nullcontext()
    with plant, recorded_outputs(module) as outputs:
        loss, _ = running.torch_step(port, module)
    return running.torch_result(port, module, loss), outputs


@contextlib.contextmanager
def recorded_outputs(module: torch.nn.Module) -> Iterator[list]:
    outputs: list = []

    def hook(name, module, inputs, output):
        values = output.values() if isinstance(output, dict) else output
        found = [values] if isinstance(values, torch.Tensor) else values
        tensors = [running.array(t) for t in found if isinstance(t, torch.Tensor)]
        outputs.append((name, tensors))

    handles = [
        child.register_forward_hook(functools.partial(hook, name))
        for name, child in module.named_modules()
    ]
    yield outputs
    for handle in handles:
        handle.remove()


def first_difference(outputs: list, others: list) -> str | None:
    """Returns the module whose output is the first to differ."""
    for (name, tensors), (_, changed) in zip(outputs, others, strict=True):
        if not all(map(np.array_equal, tensors, changed)):
            return name
    return None


def is_within(name: str, location: str) -> bool:
    return name == location or (bool(location) and name.startswith(f"{location}."))

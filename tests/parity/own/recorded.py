"""Recordings of the ports' torch programs, trained by AdamW in float32."""

import contextlib
import copy
import functools
import importlib
import pathlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import optax
import torch

from jaxnn.experiment.files.trace import Reader
from parity import own
from parity.own.port import Port
from parity.own.recording import Ported
from tests.parity.own.ports.weights import seeded

STEPS = 2
RATE, DECAY = 1e-3, 0.01


def port(name: str) -> ModuleType:
    """Returns a program of tests/parity/own/ports and its port."""
    return importlib.import_module(f"tests.parity.own.ports.{name}")


def record(
    name: str, folder: pathlib.Path, fault: str = "", steps: int = STEPS
) -> pathlib.Path:
    """Trains a program, perhaps a faulty one, and returns the folder of its trace."""
    program = port(name)
    module = program.torch_model(0)
    plant = program.FAULTS[fault].plant(module) if fault else contextlib.nullcontext()
    with plant:
        train(program, module, folder, steps)
    return folder


def train(
    program: ModuleType, module: torch.nn.Module, folder: pathlib.Path, steps: int
) -> None:
    """Records some steps of a training loop as a user would write it."""
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=DECAY)
    with seeded(0), own.record(module, folder, steps, optimizer=optimizer):
        for step in range(steps):
            optimizer.zero_grad()
            program.training_loss(module, program.batch(step), step).backward()
            optimizer.step()


def beside(port: Port, trace: Reader) -> Port:
    """Returns a port laid beside another recording of its program, compiled once."""
    other = copy.copy(port)
    other.trace = trace
    other.ported = Ported(trace, port.converted)
    other.shapes = functools.cache(other._shapes)
    other.activations = functools.lru_cache(maxsize=1)(other._activations)
    return other


def converter(program: ModuleType) -> Callable[[Any], Any]:
    """Returns the converter of a port, running statistics included."""
    if not hasattr(program, "convert_stats"):
        return program.convert
    return lambda state: {
        "params": program.convert(state),
        "batch_stats": program.convert_stats(state),
    }


def optimizer() -> optax.GradientTransformation:
    """Returns optax's equal of the programs' optimizer."""
    return optax.adamw(RATE, weight_decay=DECAY)

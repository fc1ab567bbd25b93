"""Faults that are planted in a torch module and taken out again."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

Plant = Callable[[torch.nn.Module], contextlib.AbstractContextManager]
"""Makes a module faulty within the block."""


@dataclass(frozen=True)
class Fault:
    """A torch program that is another one than its port.

    Attributes:
      location: prefix of the torch module whose output, or of the parameter whose
        gradient, or of the buffer, is the first to differ; "" if the loss is.
      cause: what is wrong, in words.
      plant: makes a module faulty within a block.
      shows_in: "forward", or what differs though every module's output is the same:
        "gradients" or "buffers".
    """

    location: str
    cause: str
    plant: Plant
    shows_in: str = "forward"


def matching(
    root: torch.nn.Module, which: str | type[torch.nn.Module]
) -> list[torch.nn.Module]:
    """Returns modules of a type, or whose whole name matches a pattern."""
    found = [
        module
        for name, module in root.named_modules()
        if (
            re.fullmatch(which, name)
            if isinstance(which, str)
            else isinstance(module, which)
        )
    ]
    assert found, f"no module is {which}"
    return found


def attribute(which: str | type[torch.nn.Module], **values: Any) -> Plant:
    """Sets attributes of modules."""

    @contextlib.contextmanager
    def planted(root: torch.nn.Module) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for module in matching(root, which):
                for name, value in values.items():
                    # Not mock.patch: some are properties that cannot be deleted.
                    stack.callback(setattr, module, name, getattr(module, name))
                    setattr(module, name, value)
            yield

    return planted


def hooked(register: Callable[[torch.nn.Module], list]) -> Plant:
    """Registers hooks, and removes the handles afterwards."""

    @contextlib.contextmanager
    def planted(root: torch.nn.Module) -> Iterator[None]:
        handles = register(root)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    return planted


def output(
    which: str | type[torch.nn.Module],
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Plant:
    """Replaces the outputs of modules by change(input, output).

    The change comes before hooks that are there already, as a fault inside of the
    module would.
    """

    def hook(module, inputs, result):
        return change(inputs[0], result)

    return hooked(
        lambda root: [
            module.register_forward_hook(hook, prepend=True)
            for module in matching(root, which)
        ]
    )


def arguments(
    which: str | type[torch.nn.Module], change: Callable[[torch.Tensor], torch.Tensor]
) -> Plant:
    """Replaces the first argument of modules."""

    def hook(module, inputs):
        return (change(inputs[0]), *inputs[1:])

    return hooked(
        lambda root: [
            module.register_forward_pre_hook(hook) for module in matching(root, which)
        ]
    )


def together(*plants: Plant) -> Plant:
    """Plants several changes that are one fault."""

    @contextlib.contextmanager
    def planted(root: torch.nn.Module) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for plant in plants:
                stack.enter_context(plant(root))
            yield

    return planted


def function(owner: Any, name: str, replacement: Callable) -> Plant:
    """Replaces a function of a torch program's file."""
    return lambda root: mock.patch.object(owner, name, replacement)


def detached(which: str) -> Plant:
    """Makes linear layers pass no gradient to their weight."""

    def hook(layer, inputs, result):
        return functional.linear(inputs[0], layer.weight.detach(), layer.bias)

    return hooked(
        lambda root: [
            layer.register_forward_hook(hook, prepend=True)
            for layer in matching(root, which)
        ]
    )


def erf_gelu(inputs: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Returns GELU in its erf form."""
    return functional.gelu(inputs)


def tanh_gelu(inputs: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Returns GELU in its tanh form."""
    return functional.gelu(inputs, approximate="tanh")


def relu6(inputs: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Returns what is positive, up to six."""
    return functional.relu6(inputs)


def soft_cap(inputs: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Returns logits within 30 on both sides."""
    return 30 * torch.tanh(result / 30)


def unshifted_loss(
    logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **rest: Any
) -> torch.Tensor:
    """Returns the mean cross entropy of every position's own label."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

"""Runs one step of a port on both sides, in a dtype, and returns what can be compared.

A result has the loss, gradients and running statistics as a flat mapping of float64
arrays, by the names of the port's trees.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn
from flax import nnx, traverse_util

from tests.parity.own.ports.double import StaysDouble
from tests.parity.own.ports.weights import seeded

QUICK = {  # to compile; the steps are small
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}
Flat = dict[str, np.ndarray]
TORCH = {
    np.dtype(name): getattr(torch, name) for name in ("float64", "float32", "float16")
} | {np.dtype(jnp.bfloat16): torch.bfloat16}


def torch_module(port: ModuleType, dtype: Any, seed: int = 0) -> torch.nn.Module:
    """Returns the port's torch module, cast to `dtype`."""
    return port.torch_model(seed).to(TORCH[np.dtype(dtype)])


def torch_step(
    port: ModuleType, module: torch.nn.Module, step: int = 0
) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Runs forward and backward.

    Returns:
      Loss, and what the dropouts multiplied their inputs by, in order.
    """
    inputs = torch_inputs(port, next(module.parameters()).dtype, step)
    module.zero_grad()
    with seeded(step), StaysDouble(), recorded_dropout(module) as masks:
        loss = port.training_loss(module, inputs, step)
    loss.backward()
    return loss.detach(), masks


def torch_inputs(port: ModuleType, dtype: torch.dtype, step: int) -> dict:
    """Returns the batch, its floating tensors in `dtype`."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in port.batch(step).items()
    }


@contextlib.contextmanager
def recorded_dropout(module: torch.nn.Module) -> Iterator[list[np.ndarray]]:
    """Collects the factors of dropouts that leave something out."""
    masks: list[np.ndarray] = []

    def hook(dropout, inputs, output):
        kept = (output != 0) | (inputs[0] == 0)
        masks.append(array(kept) / (1 - dropout.p))

    dropouts = [
        m for m in module.modules() if isinstance(m, torch.nn.Dropout) and m.p > 0
    ]
    handles = [m.register_forward_hook(hook, prepend=True) for m in dropouts]
    yield masks
    for handle in handles:
        handle.remove()


def array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor's numbers, those of floats in float64."""
    detached = tensor.detach()
    return (detached.double() if detached.is_floating_point() else detached).numpy()


def torch_result(port: ModuleType, module: torch.nn.Module, loss: torch.Tensor) -> Flat:
    """Returns what a step left in a module, by the port's names."""
    grads = {
        name: array(torch.zeros_like(p) if p.grad is None else p.grad)
        for name, p in module.named_parameters()
    }
    return {"loss": array(loss)} | flat(
        {"grads": port.convert(grads), "batch_stats": _stats(port, module)}
    )


def _stats(port: ModuleType, module: torch.nn.Module) -> dict:
    buffers = {name: array(buffer) for name, buffer in module.named_buffers()}
    return port.convert_stats(buffers) if hasattr(port, "convert_stats") else {}


def jax_result(
    port: ModuleType,
    module: torch.nn.Module,
    masks: list[np.ndarray],
    dtype: Any,
    step: int = 0,
) -> Flat:
    """Runs the port's step from a module's weights, as they were before its step."""
    state = {name: array(tensor) for name, tensor in module.state_dict().items()}
    inputs = {name: array(t) for name, t in port.batch(step).items()}
    if hasattr(port, "labels"):
        inputs["labels"] = array(port.labels(step))
    # As in a user's program: flax's own norms refuse strict promotion.
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.enable_x64(np.dtype(dtype) == np.float64),
    ):
        params, stats, given = (
            jax.tree.map(lambda x: _cast(x, dtype), tree)
            for tree in (port.convert(state), _stats(port, module), inputs)
        )
        return _jax_step(port, params, stats, given, masks)


def _cast(x: np.ndarray, dtype: Any) -> jax.Array:
    return jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else jnp.int32)


def _jax_step(
    port: ModuleType, params: dict, stats: dict, inputs: dict, masks: list
) -> Flat:
    def objective(params: dict) -> tuple[jax.Array, Mapping]:
        with given_dropout(masks):
            outputs, new = forward(port.model, params, stats, inputs)
        return port.loss(outputs, **named(port.loss, inputs)), new

    differentiated = jax.value_and_grad(objective, has_aux=True)
    (loss, new), grads = jax.jit(differentiated, compiler_options=QUICK)(params)
    return {"loss": np.asarray(loss, np.float64)} | flat(
        {"grads": grads, "batch_stats": new.get("batch_stats", {})}
    )


def forward(
    model: Any, params: dict, stats: dict, inputs: dict
) -> tuple[jax.Array, Mapping]:
    """Calls a port's model, whichever kind it is, with the inputs that it names.

    Returns:
      Outputs, and collections that it changed.
    """
    if isinstance(model, nn.Module):
        variables = {"params": params} | ({"batch_stats": stats} if stats else {})
        given = named(type(model).__call__, inputs)
        return model.apply(variables, **given, mutable=["batch_stats"])
    if isinstance(model, nnx.Module):
        graph, own, rest = nnx.split(model, nnx.Param, ...)
        nnx.replace_by_pure_dict(own, params)
        return nnx.merge(graph, own, rest)(**named(type(model).__call__, inputs)), {}
    return model(params, **named(model, inputs)), {}


def named(function: Callable, inputs: dict) -> dict:
    """Returns those of the inputs that a function names."""
    return {
        name: inputs[name]
        for name in inspect.signature(function).parameters
        if name in inputs
    }


@contextlib.contextmanager
def given_dropout(masks: list[np.ndarray]) -> Iterator[None]:
    """Makes the dropouts of flax multiply by given factors, in order."""
    left = iter(masks)

    def multiply(dropout, x, *args, **kwargs):
        return x * jnp.asarray(next(left), x.dtype) if dropout.rate else x

    with (
        mock.patch.object(nn.Dropout, "__call__", multiply),
        mock.patch.object(nnx.Dropout, "__call__", multiply),
    ):
        yield


def flat(tree: dict) -> Flat:
    """Returns leaves by the path to them, in float64."""
    leaves = traverse_util.flatten_dict(tree, sep="/")
    return {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}


def largest_distance(actual: Flat, expected: Flat) -> float:
    """Returns the largest distance of a tensor, relative to what it is expected to be.

    Gradients that are no more than rounding, as that of a key's bias, are measured by
    the norm of all gradients.
    """
    assert actual.keys() == expected.keys()
    grads = [g.ravel() for name, g in expected.items() if name.startswith("grads")]
    least = 1e-4 * float(np.linalg.norm(np.concatenate(grads)))
    return max(
        float(
            np.linalg.norm(actual[name] - tensor) / max(np.linalg.norm(tensor), least)
        )
        for name, tensor in expected.items()
    )

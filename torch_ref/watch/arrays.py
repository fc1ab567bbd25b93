"""torch's tensors and Python's numbers as arrays that a trace can hold."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from torch_ref import batches
from torch_ref.precision import at_least_float32


def exact(tensor: torch.Tensor) -> np.ndarray:
    """Copies a tensor to an array of its own dtype.

    Raises:
      TypeError: NumPy has no such array: it is sparse, quantized or complex.
    """
    if tensor.is_complex():
        raise TypeError("complex")
    return _held(tensor.detach()).copy()


def wide(tensor: torch.Tensor) -> np.ndarray:
    """Copies a tensor to an array; float16 and bfloat16 come out as float32."""
    return _held(at_least_float32(tensor.detach())).copy()


def all_exact(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """`exact` of each, in one copy."""
    return _split(tensors, _held)


def all_wide(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """`wide` of each, in one copy."""
    return _split(tensors, lambda flat: _held(at_least_float32(flat)))


def _split(tensors: Mapping[str, torch.Tensor], held: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = dict.fromkeys(tensors)  # type: ignore[assignment]
    for names, flat in batches.flattened(tensors):
        array, end = held(flat), 0
        for name in names:
            begin, end = end, end + tensors[name].numel()
            found[name] = array[begin:end].reshape(tensors[name].shape)
    return found


def _held(tensor: torch.Tensor) -> np.ndarray:
    """Returns an array of a tensor, which may share its memory."""
    held = tensor.cpu().contiguous()
    if held.dtype == torch.bfloat16:
        # NumPy itself has no bfloat16, and torch knows nothing of ml_dtypes.
        return held.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return held.numpy()


def number(value: Any) -> np.ndarray:
    """Returns a Python or NumPy number, or an array, as an array.

    Raises:
      TypeError: it is none.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(type(value).__name__)
    return array


def digest(array: np.ndarray) -> np.ndarray:
    """Returns [32] uint8: the SHA-256 of an array's bytes in C order."""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    return np.frombuffer(content, np.uint8)


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, value) of nested mappings, sequences and dataclasses."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type | Mapping):
        tree = {field.name: getattr(tree, field.name) for field in _fields(tree)}
    if isinstance(tree, list | tuple):
        tree = dict(enumerate(tree))
    if not isinstance(tree, Mapping):
        yield name, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{name}.{key}" if name else str(key))


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """Returns the tensors of a nested structure, in its order."""
    # The common cases first: this runs for every call of torch while watching.
    if isinstance(tree, torch.Tensor):
        return [tree]
    if type(tree) in (tuple, list) and all(isinstance(t, torch.Tensor) for t in tree):
        return list(tree)
    if tree is None or isinstance(tree, int | float | str | torch.dtype | torch.device):
        return []
    return [leaf for _, leaf in leaves(tree) if isinstance(leaf, torch.Tensor)]


def _fields(tree: Any) -> tuple[Any, ...]:
    return dataclasses.fields(tree)

"""Lets Hugging Face's models compute in float64 throughout."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

NARROWINGS = (torch.Tensor.float, torch.Tensor.to)


class StaysDouble(TorchFunctionMode):
    """Within it a cast of float64 to float32 does nothing.

    The models cast to float32 what they mean to compute more exactly than in half
    precision; in float64 that would be the only rounding there is.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in NARROWINGS and _narrows(function, args, kwargs):
            return args[0]
        if function is torch.nn.functional.softmax and _is_double(args[0]):
            kwargs.pop("dtype", None)
        return function(*args, **kwargs)


def _narrows(function: Any, args: tuple, kwargs: dict) -> bool:
    asked = function is torch.Tensor.float or torch.float32 in (
        *(a for a in args[1:] if isinstance(a, torch.dtype)),
        kwargs.get("dtype"),
    )
    return asked and _is_double(args[0])


def _is_double(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.float64

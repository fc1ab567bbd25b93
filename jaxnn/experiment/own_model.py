"""A network of one's own: `--model=FILE.py:NAME`.

FILE is a Python file with the network in both libraries:

    class NAME(flax.linen.Module)       what jaxnn trains
    class TorchNAME(torch.nn.Module)    the same for torch_ref
    def convert(state_dict)             optional: torch's state -> flax's parameters

Both classes are constructed with keyword arguments, those that their constructors name:
`num_inputs`, `input_shape`, `num_outputs`, `num_tokens` and `per_step` say what the
data are, `activation` is a function, and the flags in FLAGS have their values. Both are
called with the inputs as jaxnn lays them out: [batch, features], [batch, steps,
features], images [batch, height, width, channels] or int32 tokens [batch, steps]; and
with `train` (flax) and `masks` (both, `dropout.MaskSource` or None) if they name them.
They return [batch, num_outputs], or [batch, steps, num_outputs] if `per_step`.

Dropout. flax's and torch's nn.Dropout draw jaxnn's masks, the nth that is called in one
the mask of the nth in the other; four-dimensional tensors of torch count as [batch,
channels, height, width].

Parameters. Without `convert` modules have the same names in both, and known layers
their usual layouts (torch_ref/params_io.py). `convert` takes {torch name: array} and
returns flax's parameters, flat or nested, or {"params": ..., "batch_stats": ...}; it
only moves entries, and in which way is found by trying it out.
"""

import functools
import hashlib
import importlib.util
import inspect
import math
import pathlib
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from jaxnn.experiment.catalogue import split_own
from jaxnn.experiment.data.dataset import Signature
from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment

FLAGS = (
    "hidden_sizes",
    "dropout_rates",
    "normalization",
    "channels",
    "kernel_size",
    "pool",
    "num_layers",
    "width",
    "num_heads",
    "mlp_width",
)
"""Flags that a constructor may take by name."""
TORCH = "Torch"
"""What the name of torch's class begins with."""
CONVERT = "convert"


def load(model: str, prefix: str = "") -> Callable[..., Any]:
    """Returns a class of `--model=FILE.py:NAME`.

    Args:
      model: value of the flag.
      prefix: "" for flax's class, TORCH for torch's.

    Raises:
      UserError: the file cannot be imported, or has no such class.
    """
    path, name = split_own(model)
    found = getattr(_module(path), prefix + name, None)
    if inspect.isclass(found):
        return found
    classes = [
        name
        for name, value in vars(_module(path)).items()
        if inspect.isclass(value) and value.__module__ == _module(path).__name__
    ]
    raise UserError(
        f"--model: {path} has no class {prefix + name}; it has "
        f"{', '.join(classes) or 'none'}"
    )


def converter(model: str) -> Callable[..., Any] | None:
    """Returns `convert` of the file, or None if it has none."""
    path, _ = split_own(model)
    return getattr(_module(path), CONVERT, None)


def construct(
    make: Callable[..., Any],
    experiment: Experiment,
    signature: Signature,
    activation: Callable[..., Any],
) -> Any:
    """Constructs a network with the facts that its constructor names.

    Args:
      make: class of the network.
      experiment: model flags.
      signature: shapes of the data.
      activation: the stack's function for `--activation`.

    Raises:
      UserError: the constructor needs something else, or fails.
    """
    facts = {
        **{name: getattr(experiment, name) for name in FLAGS},
        **signature._asdict(),
        "num_inputs": math.prod(signature.input_shape),
        "activation": activation,
    }
    named = inspect.signature(make).parameters
    for name, parameter in named.items():
        is_named = parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if name not in facts and is_named and parameter.default is parameter.empty:
            raise UserError(
                f"--model: {make.__name__} takes {name}, which is none of "
                f"{', '.join(facts)}; give it a default"
            )
    given = {name: facts[name] for name in named if name in facts}
    return tried(experiment.model, lambda: make(**given))


def takes(call: Callable[..., Any], name: str) -> bool:
    """Returns whether a function names an argument."""
    return name in inspect.signature(call).parameters


def tried(model: str, action: Callable[[], Any]) -> Any:
    """Runs code of the file; what it raises becomes one line.

    Raises:
      UserError: it failed.
    """
    path, _ = split_own(model)
    try:
        return action()
    except UserError:
        raise
    # A file may raise anything, and may end the program.
    except (Exception, SystemExit) as error:
        raise UserError(f"--model: {_complaint(path, error)}") from error


def check_outputs(
    model: str, name: str, shape: tuple[int, ...], signature: Signature
) -> None:
    """Raises UserError unless outputs of one example have the shape of the task."""
    steps = signature.input_shape[:1] if signature.per_step else ()
    wanted = (1, *steps, signature.num_outputs)
    if tuple(shape) != wanted:
        path, _ = split_own(model)
        raise UserError(
            f"--model: {name} of {path} returns {tuple(shape)} for inputs "
            f"{(1, *signature.input_shape)}, the task needs {wanted}"
        )


@functools.cache
def _module(path: pathlib.Path) -> ModuleType:
    """Imports a file once, with its folder on the path as Python does for a script."""
    name = f"own_model_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--model: {path}: no such file; give FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    # Dataclasses look their module up, and so does pickle.
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    tried(f"{path}:", lambda: loader.exec_module(module))
    return module


def _complaint(path: pathlib.Path, error: BaseException) -> str:
    """Returns what was raised, and at which line of the file, in one line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f", line {lines[-1]}" if lines else ""
    text = " ".join(str(error).split())
    return f"{path}{where}: {type(error).__name__}: {text}"

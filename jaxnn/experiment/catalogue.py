"""What the flags can choose, with the facts that checks and judges need of each.

A name listed here is implemented in both stacks and in the judge's float64 oracle; the
README says how to add one.
"""

import pathlib
from typing import NamedTuple

# Tasks: what a network learns.
REGRESSION = "regression"
BINARY = "binary"
MULTICLASS = "multiclass"
LANGUAGE = "language"
TASKS = (REGRESSION, BINARY, MULTICLASS, LANGUAGE)

# Kinds of example: what a network takes.
TABLE = "table"
SEQUENCE = "sequence"
IMAGE = "image"
TOKENS = "tokens"

# Whether a network has hidden layers by --hidden_sizes.
NONE = "none"
OPTIONAL = "optional"
REQUIRED = "required"

FLATTENED = (TABLE, SEQUENCE, IMAGE)
"""Kinds of example for a network that takes rows: it flattens all but tokens."""


class Model(NamedTuple):
    """Facts on a network.

    Attributes:
      family: networks of one family share an implementation.
      examples: kinds of example that it takes.
      hidden: whether --hidden_sizes gives hidden layers: "none", "optional" or
        "required".
      activated: True if --activation and --normalization act on its hidden layers.
      normalizes: normalization that it always has: "batch", "layer" or "".
    """

    family: str
    examples: tuple[str, ...]
    hidden: str = NONE
    activated: bool = False
    normalizes: str = ""


class Optimizer(NamedTuple):
    """Facts on an optimizer.

    Attributes:
      moments: moments that it keeps: "first", "second".
      initial: flag with the value that the moments start at; "": they start at 0.
      family: optimizers of one family share an implementation and flags.
    """

    moments: tuple[str, ...]
    initial: str = ""
    family: str = ""


# The perceptron and logistic regression are the linear network under another loss.
MODELS = {
    "linear": Model("linear", FLATTENED),
    "perceptron": Model("linear", FLATTENED),
    "logistic": Model("linear", FLATTENED),
    "mlp": Model("mlp", FLATTENED, hidden=REQUIRED, activated=True),
    "cnn": Model("cnn", (IMAGE,), hidden=OPTIONAL, activated=True),
    "resnet": Model("resnet", (IMAGE,), normalizes="batch"),
    "rnn": Model("recurrent", (SEQUENCE, TOKENS), hidden=REQUIRED),
    "lstm": Model("recurrent", (SEQUENCE, TOKENS), hidden=REQUIRED),
    "gru": Model("recurrent", (SEQUENCE, TOKENS), hidden=REQUIRED),
    "transformer": Model("transformer", (TOKENS,), normalizes="layer"),
    "transformer_encoder": Model("transformer", (SEQUENCE, IMAGE), normalizes="layer"),
}

OWN = Model("own", (TABLE, SEQUENCE, IMAGE, TOKENS), hidden=OPTIONAL, activated=True)
"""What may be true of a network of one's own, `--model=FILE.py:NAME`."""

ACTIVATIONS = (
    "linear",
    "step",
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "softmax",
    "gelu",
    "gelu_tanh",
)

INITIALIZERS = (
    "zeros",
    "normal",
    "lecun_normal",
    "lecun_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "orthogonal",
    "torch_default",
)

LOSSES = {
    "binary_cross_entropy": (BINARY,),
    "cross_entropy": (MULTICLASS, LANGUAGE),
    "hinge": (BINARY,),
    "multiclass_hinge": (MULTICLASS,),
    "perceptron": (BINARY, MULTICLASS),
    "mse": (REGRESSION, BINARY),
}
"""Loss -> tasks that it suits; of each task, the usual loss comes first."""

OPTIMIZERS = {
    "sgd": Optimizer(()),
    "momentum": Optimizer(("first",)),
    "nesterov": Optimizer(("first",)),
    "ema_momentum": Optimizer(("first",)),
    "sutskever_momentum": Optimizer(("first",)),
    "adam": Optimizer(("first", "second"), family="adam"),
    "adamw": Optimizer(("first", "second"), family="adam"),
    "rmsprop": Optimizer(("second",)),
    "adagrad": Optimizer(("second",), initial="adagrad_initial"),
}


def is_own(model: str) -> bool:
    """Returns whether `--model` names a class in a file."""
    return ".py:" in model


def split_own(model: str) -> tuple[pathlib.Path, str]:
    """Returns file and class of `--model=FILE.py:NAME`."""
    path, _, name = model.rpartition(":")
    return pathlib.Path(path), name


def facts_on(model: str) -> Model:
    """Returns the facts on a network of the catalogue or of one's own."""
    return OWN if is_own(model) else MODELS[model]


def models_of(family: str) -> tuple[str, ...]:
    """Returns the names of the models of a family."""
    return tuple(name for name, facts in MODELS.items() if facts.family == family)


def losses_for(task: str) -> tuple[str, ...]:
    """Returns the names of the losses that suit a task, the usual one first."""
    return tuple(name for name, tasks in LOSSES.items() if task in tasks)


RECURRENT = models_of("recurrent")
TRANSFORMERS = models_of("transformer")
ADAM = tuple(name for name, facts in OPTIMIZERS.items() if facts.family == "adam")

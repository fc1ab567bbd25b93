"""The recording, as a public format: see `jaxnn.experiment.files.trace`, which both
stacks share."""

from jaxnn.experiment.files.trace import (
    VERSION,
    Reader,
    Writer,
    flatten,
    grad_norm,
    select,
    unflatten,
)

__all__ = ["VERSION", "Reader", "Writer", "flatten", "grad_norm", "select", "unflatten"]

"""The recording, as a public format: see `jaxnn.experiment.trace`, which both stacks share."""

from jaxnn.experiment.trace import VERSION, Reader, Writer, flatten, grad_norm, select, unflatten

__all__ = ["VERSION", "Reader", "Writer", "flatten", "grad_norm", "select", "unflatten"]

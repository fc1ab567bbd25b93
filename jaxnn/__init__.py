"""jaxnn: neural networks in JAX, with a DeepSpeed twin and a judge that compares the
two."""

__version__ = "0.1.0"

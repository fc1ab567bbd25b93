"""jaxnn: neural networks in JAX, with a DeepSpeed twin and a judge that compares the
two."""

from jaxnn.experiment import console

console.say_interrupted_while_importing()


__version__ = "0.1.0"

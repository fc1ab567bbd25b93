"""torch_ref: jaxnn's experiments in PyTorch under DeepSpeed, file by file its twin.

Twins annotate tensors as `Array`, so that `diff` shows where the libraries differ.
"""

from jaxnn.experiment import console

console.say_interrupted_while_importing()

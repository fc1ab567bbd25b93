"""Training programs in PyTorch with their ports to JAX, as users would write them.

Every file is a program and its port:

    torch_model(seed) -> the torch module, with random weights
    batch(step) -> what is passed to its forward, by argument name
    training_loss(module, inputs, step) -> loss, as the training script computes it
    model, loss(outputs, ...), convert(state) -> the port
    FAULTS -> name: fault that makes the torch program another one

`loss` names those of the inputs that it needs, and so does `model`. resnet.py also has
labels(step), which its forward does not see, and convert_stats(state) -> batch_stats.
"""

"""torch_ref: jaxnn's experiments in PyTorch under DeepSpeed, file by file the twin of
jaxnn."""

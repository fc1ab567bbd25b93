"""How fast jaxnn trains an experiment, beside DeepSpeed and plain PyTorch."""

"""Five operations in NumPy and in JAX; in PyTorch: torch_ref/side_by_side.py."""

"""Anybody's JAX network behind one call: flax.linen, flax.nnx or a function."""

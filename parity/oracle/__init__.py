"""The third opinion: every network of the project once more, on a small reverse-mode
autograd in NumPy float64.

It shares no numerical code with jaxnn or torch_ref, so where those two differ it can
say which is nearer the truth.
"""

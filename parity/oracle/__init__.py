"""Third opinion: every network, loss and optimizer on a NumPy float64 autograd.

Shares no numerical code with jaxnn or torch_ref. Where the two stacks differ, the
oracle says which of them is closer to the exact result.
"""

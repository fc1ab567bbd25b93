"""The experiment in PyTorch alone, without DeepSpeed, as its users write it.

What `parity.speed` measures jaxnn against: the loop of a tutorial, and the fastest that
a careful person gets without leaving PyTorch. The networks are the twins of
`torch_ref.models` in torch's own layers, without what makes those comparable to the
last digits and slow.
"""

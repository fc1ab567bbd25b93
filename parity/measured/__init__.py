"""What a recording really did: measured from its tensors, not guessed.

From parameters, gradients and moments of consecutive steps of any training program,
`fit.measure` infers what the optimizer did to each tensor; `compare.differences` says
how two measurements differ; `predict.predict` applies a measured formula. NumPy only,
in float64.
"""

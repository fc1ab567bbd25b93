"""DeepSpeed checkpoints that torch_ref did not write, read and filled in.

`opening` finds the files and refuses what is not read, `groups` names the parameters,
`pieces` tells where each whole tensor lies in the files, and `state` reads and writes
through that. `python -m torch_ref.foreign` is the torch half of `parity.convert
--port`.
"""

"""torch_ref.train with a fault planted, for `parity.run --torch_module`: the judge must
see each."""

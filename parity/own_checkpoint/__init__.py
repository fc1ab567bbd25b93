"""Anybody's DeepSpeed checkpoint as parameters and optax state of a port, and back.

`python -m parity.convert --from=CKPT --port=port.py --to=FOLDER` writes

    FOLDER/state.safetensors   every array by its path in the tree below
    FOLDER/orbax/              the same tree, as Orbax restores it

The tree is a dict:

    params            the tree that `convert` makes, float32: masters, frozen
                      parameters, and buffers that stand in it; flax's variables, which
                      have a "params" of their own, stand for themselves
    opt_state         state of the port's optimizer, if there is one
    moments/KEY/LEAF  what torch's optimizer keeps and the state has no place for
    step              () int32: batches, skipped ones included
    updates           () int32: updates applied; what schedules count
    optimizer_step    () int32: updates as torch's optimizer counts them; Adam's count
    loss_scale        () float32
    clean_steps       () int32: steps since the last overflow
    hysteresis        () int32: overflows left before the loss scale halves

`layout` lays a port beside a checkpoint, `optax_state` tells which array of an optax
state is which of torch's, `tree_files` writes and reads the tree, and `from_deepspeed`
and `to_deepspeed` go there and back.
"""

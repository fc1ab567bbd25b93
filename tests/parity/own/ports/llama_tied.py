"""Llama whose head is its embedding."""

import functools

from tests.parity.own.ports import faults, llama

torch_model = functools.partial(llama.torch_model, tied=True)
batch, training_loss = llama.batch, llama.training_loss
model = llama.Llama(tied=True)
loss, convert = llama.loss, llama.convert_body

FAULTS = {
    **llama.FAULTS,
    "detached_head": faults.Fault(
        "model.embed_tokens",
        "the tied head passes no gradient to the embedding",
        faults.detached("lm_head"),
        shows_in="gradients",
    ),
}

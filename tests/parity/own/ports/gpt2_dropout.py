"""GPT-2 with dropout of embeddings and of the residual stream, none of attention."""

import functools

from tests.parity.own.ports import faults, gpt2

RATE = 0.1

torch_model = functools.partial(gpt2.torch_model, dropout=RATE)
batch, training_loss = gpt2.batch, gpt2.training_loss
model = gpt2.GPT2(dropout=RATE)
loss, convert = gpt2.loss, gpt2.convert

FAULTS = {
    **gpt2.FAULTS,
    "unscaled_dropout": faults.Fault(
        "transformer.drop",
        "what the embeddings' dropout keeps is not divided by the share that it keeps",
        faults.output(r"transformer\.drop", lambda inputs, output: output * (1 - RATE)),
    ),
}
